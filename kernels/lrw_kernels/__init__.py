"""Winograd kernels on raw buffers: numbers in, numbers out. Knows neither torch nor `lrw`."""
