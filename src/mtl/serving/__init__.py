"""The gateway: every task's model behind one port, in the protocols that clients speak already."""
