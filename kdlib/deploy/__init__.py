"""What leaves the notebook: models exported to files, and a web page that serves them."""
