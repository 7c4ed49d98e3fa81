"""Tests of an installed package: ``python -m pytest --pyargs gioada_fast.smoke``, in seconds.

They need pytest, but neither a checkout nor a compiler nor a GPU.
"""
