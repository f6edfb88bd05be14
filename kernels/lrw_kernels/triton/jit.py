"""The one place that imports triton, to say what is missing where it is."""

try:
    import triton
    import triton.language as tl
except ModuleNotFoundError as error:
    if error.name != "triton":
        raise
    raise ModuleNotFoundError(
        "the GPU kernels need the package triton (pip install 'lrw[gpu]')", name="triton"
    ) from None

__all__ = ["tl", "triton"]
