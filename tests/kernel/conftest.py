"""Hypothesis for the kernel's tests: no deadline, as the machine may be busy."""

from hypothesis import settings

settings.register_profile("kernel", deadline=None)
settings.load_profile("kernel")
