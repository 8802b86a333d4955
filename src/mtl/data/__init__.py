"""The data set on disk: the paths of its files, reading and checking them, and feeding a training from them.

TensorFlow is set up here too (`backend`), as it reads the shards. Images come from `mtl.sources`.
"""
