"""Winograd layers on NVIDIA GPUs: Triton kernels and what launches them.

Importing this package needs neither triton nor a GPU; `conv` needs triton, calling it a GPU, or Triton's
interpreter (TRITON_INTERPRET=1 in the environment before triton is imported; slow, for tests).
"""
