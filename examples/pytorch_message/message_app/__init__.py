"""Handwritten digits with PyTorch and Flower's Message API."""
