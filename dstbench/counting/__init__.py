"""Parameters and theoretical FLOPs of masked networks."""
