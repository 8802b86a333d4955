"""Serving: `mtl serve`, every task's model behind one port in three protocols; `mtl request`, its client; `mtl export`.

The rules for promoting and loading a registered model are in `mtl.release`. No stage imports this room.
"""

TOKEN = "MTL_SERVE_TOKEN"  # environment variable with the bearer token, of the server and its clients
