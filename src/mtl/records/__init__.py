"""Conversion of images to TFRecord shards, by Apache Beam.

Shards are read and checked in `mtl.data.shards`. No stage imports this room.
"""
