"""Triton kernels, one module per op. Importing a module needs triton; the package does not."""
