"""One training on several machines: their addresses, their meeting, and the loop that they share."""
