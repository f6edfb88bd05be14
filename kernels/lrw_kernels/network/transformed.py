"""Weights of the Winograd domain that are computed of a convolution's filter when somebody asks for them."""

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from lrw_kernels.winograd import Tile

Array = npt.NDArray[np.float32]
CHANNELS = 1 << 14  # pairs of input and output channels at a time, so that float64 stays in the caches


class Transformed(Sequence[Array]):
    """The weights of a single block of output channels, all positions kept: U [K, Cin, Cout] of a `filter`
    [kd, kh, kw, Cin, Cout]."""

    def __init__(self, filter: Array, tile: Tile) -> None:
        self.filter, self.tile = filter, tile

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: Any) -> Any:
        """U, computed now."""
        range(1)[index]  # raises IndexError
        cin, cout = self.filter.shape[3:]
        made = np.empty((self.tile.positions, cin, cout), np.float32)
        for first, some in self.parts():
            made[:, first : first + some.shape[1]] = some
        return (made,)[index]

    def parts(self) -> Iterator[tuple[int, Array]]:
        """(first input channel, their U [K, some of Cin, Cout]) of all input channels, some at a time."""
        d, h, w = (axis.array("G") for axis in self.tile.axes)
        table = np.kron(np.kron(d, h), w)
        cin, cout = self.filter.shape[3:]
        together = max(1, CHANNELS // cout)
        taps = self.filter.reshape(prod(self.filter.shape[:3]), cin, cout)
        for first in range(0, cin, together):
            some = taps[:, first : first + together].astype(np.float64)
            with np.errstate(all="ignore"):  # who packs them refuses what is not finite
                u = (table @ some.reshape(len(taps), -1)).astype(np.float32)
            yield first, u.reshape(-1, some.shape[1], cout)
