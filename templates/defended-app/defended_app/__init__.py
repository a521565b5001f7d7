"""A Flower app whose server survives hostile clients."""
