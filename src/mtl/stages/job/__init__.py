"""`mtl train`: the stages of one task in a folder away from the repository, as a cluster's job."""
