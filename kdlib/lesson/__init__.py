"""What a notebook shows: profiles, figures, widgets and exercises."""

from kdlib.lesson import home

home.lend()  # before any part of Jupyter is imported: some ask for the home folder at once
