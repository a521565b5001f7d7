"""Handwritten digits with scikit-learn and Flower's Message API."""
