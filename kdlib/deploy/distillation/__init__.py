"""`kdlib distill`: from images to a student that is exported, measured and described, in one command.

The files, in the order in which things happen: `command` (the options), `settings` (what is chosen), `folder` (where
results are kept, each written whole), `pictures` (the images), `networks` (teacher and student by name), `plan` (how
long it will take, and what is cut to fit), `stages` (what is done, each stage once), `measures`, `disputes`, `card`
and `report` (what is said of it). `progress` tells how far it is. Nothing is imported here: `kdlib --help` answers
at once.
"""
