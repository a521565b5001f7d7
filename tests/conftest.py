"""Settings of all tests."""

from hypothesis import HealthCheck, settings

# the same examples in every run, and none too slow: a busy machine is no fault
settings.register_profile("repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("repeatable")
