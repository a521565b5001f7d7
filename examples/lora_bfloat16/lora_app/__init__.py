"""Low-rank adapters in bfloat16 around a frozen network."""
