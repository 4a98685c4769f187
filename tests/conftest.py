"""What holds for all tests: hypothesis judges what is true, not how fast the machine is."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# By default an example that takes 0.2 s fails its test, and so does a machine that pauses meanwhile.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")
