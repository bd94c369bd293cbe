"""For the tests of every folder."""

from hypothesis import HealthCheck, settings

# A property is tried with the same examples each time, and none of them is timed: what takes long
# on a busy machine is no fault, and what fails once fails again.
settings.register_profile(
    "mlhub",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("mlhub")
