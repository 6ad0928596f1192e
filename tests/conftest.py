"""What all tests share."""

from hypothesis import settings

# A busy machine, or the first use of a library, is no failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
