"""A torch network becomes the network of operators that kernels compute, as a library or in this process."""

from lrw.trace.network import trace

__all__ = ["trace"]
