"""Settings for all tests."""

from hypothesis import settings

# A busy machine must not fail a property test: time is measured in benchmarks/ only.
settings.register_profile("fastgan", deadline=None)
settings.load_profile("fastgan")
