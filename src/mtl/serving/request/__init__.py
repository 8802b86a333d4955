"""The client of running servers, for `mtl request`. It needs neither TensorFlow nor FastAPI."""
