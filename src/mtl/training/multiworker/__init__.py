"""One training on several machines: who they are, how they meet, and the loop that they share."""
