"""The data set on disk: where its files are, how they are read, and how a training is fed from them.

TensorFlow is set up here too (`backend`), as shards are read by it. How images get here is told in `mtl.sources`.
"""
