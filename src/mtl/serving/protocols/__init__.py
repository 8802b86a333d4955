"""Protocols as pure functions: a request's body in, images out; probabilities in, an answer out."""
