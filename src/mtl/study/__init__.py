"""Independent, shared or derived networks: how they are arranged, compared, and what follows for each task."""
