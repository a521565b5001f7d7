"""Settings of all tests."""

from hypothesis import settings

# the same examples in every run, and none too slow: a busy machine is no fault
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
