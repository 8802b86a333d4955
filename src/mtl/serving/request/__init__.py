"""The client of running servers, for `mtl request`. It imports neither TensorFlow nor FastAPI."""
