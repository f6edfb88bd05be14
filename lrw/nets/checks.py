"""The argument checks both networks share."""

from collections.abc import Sequence


def positive(name: str, value: int) -> int:
    """Return `value` if it is an int of at least 1.

    Raises:
        ValueError: `value` is not an int (bool counts as not) or is below 1.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be an int of at least 1, got {value!r}")
    return value


def volume_size(value: Sequence[int]) -> tuple[int, int, int]:
    """Return `input_size` as a tuple (D, H, W).

    Raises:
        ValueError: not three ints of at least 1.
    """
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 3:
        raise ValueError(f"input_size must be three ints (D, H, W), got {value!r}")
    depth, height, width = (positive(f"input_size[{axis}]", side) for axis, side in enumerate(value))
    return depth, height, width
