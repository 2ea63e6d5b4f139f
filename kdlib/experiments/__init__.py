"""The experiments behind the recorded results, one module a lesson; see `kdlib.lesson.results`."""
