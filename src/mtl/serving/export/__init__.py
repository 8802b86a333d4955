"""Models in the formats of other servers: SavedModel and ONNX."""
