"""Small Flower apps with flsec dropped in; see README.md."""
