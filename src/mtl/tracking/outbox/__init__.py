"""Calls to the MLflow server as data. While it is away they are written down; later each is sent once."""
