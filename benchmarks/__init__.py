"""Measurements: ``pytest benchmarks`` runs them, ``python -m benchmarks.report`` prints results."""
