"""What a notebook shows: profiles, figures, widgets and exercises."""
