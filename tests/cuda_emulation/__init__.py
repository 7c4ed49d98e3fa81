"""Runs the CUDA kernels of ``csrc/cuda`` on the CPU and checks every access to memory.

``build.py`` compiles the kernels with g++, ``cuda_runtime.h`` and ``emulator.cpp`` stand in for the
CUDA runtime, ``emulator.py`` makes the result the ops' back end ``cuda`` on CPU tensors. Logic is
seen, speed is not, nor how a GPU's own units round.
"""
