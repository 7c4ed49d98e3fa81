"""Predicts images and videos: ``python -m gioada_fast.predict``."""
