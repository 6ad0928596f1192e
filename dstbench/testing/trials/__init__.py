"""What plugins are tried on: small networks, synthetic data, new processes."""

from dstbench.testing.trials.trial import Trial

__all__ = ["Trial"]
