"""Which models may be used: the gate and the comparison with the champion, promotion, rollback, and loading by name."""
