"""Exports trained networks: ``python -m gioada_fast.export``."""
