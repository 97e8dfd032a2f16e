"""Measurements: ``python -m benchmarks.step`` and its neighbours; see README.md in this folder."""
