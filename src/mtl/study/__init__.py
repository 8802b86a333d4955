"""Independent, shared or derived networks: their arrangements, compared at equal cost."""
