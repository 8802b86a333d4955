"""Images to TFRecord shards, by Apache Beam.

Shards are read in `mtl.data.shards`; nothing here is imported by a stage.
"""
