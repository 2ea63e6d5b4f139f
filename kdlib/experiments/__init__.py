"""The experiments behind the recorded results, a module or several for each lesson; see `kdlib.lesson.results`."""
