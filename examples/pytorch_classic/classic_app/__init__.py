"""Handwritten digits with PyTorch and Flower's classic API."""
