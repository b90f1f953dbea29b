"""Measurements as modules: `python -m benchmarks.<name>` prints a table and writes it as JSON beside it."""
