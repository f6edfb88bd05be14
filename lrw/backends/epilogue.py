"""What follows a convolution before its result is written: bias, residual, ReLU, in this order."""

from typing import NamedTuple

from torch import Tensor


class Epilogue(NamedTuple):
    """bias [Cout], residual [N, D', H', W', Cout], and whether negative values become zero."""

    bias: Tensor | None = None
    residual: Tensor | None = None
    relu: bool = False

    def apply(self, y: Tensor) -> Tensor:
        """y [N, D', H', W', Cout] finished by tensor operations, for backends that do not fuse them."""
        if self.bias is not None:
            y = y + self.bias.to(y.dtype)
        if self.residual is not None:
            y = y + self.residual.to(y.dtype)
        return y.relu() if self.relu else y


PLAIN = Epilogue()
