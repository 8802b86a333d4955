"""Multi-task learning with independent models: the library the DVC stages are made of."""
