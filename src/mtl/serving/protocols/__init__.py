"""Protocols as pure functions: a request's body to images, and probabilities to a response's body."""
