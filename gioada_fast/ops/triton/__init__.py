"""Triton kernels, one module an op. Importing one needs triton; the package does not."""
