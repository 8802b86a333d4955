"""Networks by name, the blocks they are built from, their answers, and models as files.

Import TensorFlow by `mtl.data.backend` before any module of this room but `saving`.
"""
