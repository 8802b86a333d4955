"""The stages of a DVC pipeline side by side, with DVC's own locks and results.

It knows nothing of this project: not what stages do, nor what their files hold.
"""
