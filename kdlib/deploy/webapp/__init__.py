"""A web page that classifies pictures with exported models: onnxruntime, Flask and waitress, no torch."""
