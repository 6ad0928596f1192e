"""Trained models as folders that others can load, without the benchmark or its data."""
