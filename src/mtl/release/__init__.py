"""Release of models: the gate, the comparison with the champion, promotion, rollback, and `mtl.load`.

The HTTP server is in `serving`, and the calls of MLflow's registry are in `tracking`.
"""
