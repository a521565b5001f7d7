"""Trees that clients grow and the server collects."""
