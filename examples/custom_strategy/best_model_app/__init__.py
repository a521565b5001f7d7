"""Handwritten digits with a strategy of one's own."""
