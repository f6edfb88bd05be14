"""The layer trained through two small matrices."""

from math import sqrt

import torch
from torch import Tensor, nn

from lrw import checks
from lrw.activations import without_autocast
from lrw.nn import units as counting
from lrw.nn.winograd import WinogradConv3d

INITS = ("gc_zero", "gr_zero", "principal")


class LowRankWinogradConv3d(WinogradConv3d):
    """A Winograd layer trained through two small matrices only (Qin, Lin et al., arXiv 2301.11180).

    U = weight + sum_s (scale Gc)[:, s] Gr[s] on the kept columns; `weight` [T, Cin, Cout] is frozen, `Gr`
    [s, Cin, Cout] and `Gc` [T, s] are trainable (the paper's factors transposed, so that they are GEMM-shaped). Where
    one factor starts at zero step 0 is the given layer bit for bit. The paper's start is not known.

    `units` says in what rows of Gc are counted, so that one learning rate suits all of them: "none" (scale is one, as
    in the paper), "importance" (1 / F_p, in which each position moves the outputs equally: at F(4,3) F differs by 24
    times) or "gram" (H^-1/2, by a Cholesky factor of the Gram matrix H of the outputs: positions that move them alike
    count together). What is trained then does not depend on how factors are split between G and B. Ours. The buffer
    `scale` is saved with the factors: they are not loaded where they would be counted in other units.
    """

    Gr: nn.Parameter
    Gc: nn.Parameter

    @classmethod
    def of(
        cls, layer: WinogradConv3d, rank: int, init: str = "gc_zero", units: str = "none"
    ) -> "LowRankWinogradConv3d":
        """`layer` with a low-rank update of `rank` (1 to T); its parameters are shared, `weight` is frozen.

        init "gc_zero" (Gr random, Gc zero), "gr_zero" (the other way) or "principal" (the factors take over the base's
        `rank` largest singular directions, the frozen rest is a tensor of its own; equal up to rounding, not bit for
        bit). Raises ValueError for other values.
        """
        checks.check_count(rank, "rank", layer.geometry.tile.positions)
        counting.check(units)
        if init not in INITS:
            raise ValueError(f"init: {init!r}; accepted are {', '.join(INITS)}")
        new = cls.__new__(cls)
        nn.Module.__init__(new)
        buffers = {name: None if b is None else b.clone() for name, b in layer._buffers.items()}
        new.__dict__.update({**layer.__getstate__(), "_parameters": layer._parameters.copy(), "_buffers": buffers})
        new.compute_all(False)
        base = layer.all_rows().detach()
        new.weight = new.weight if layer.scale is None else nn.Parameter(base)
        new.weight.requires_grad_(False)
        new.units, scale = units, counting.scale(layer.geometry.tile, units)
        new.register_buffer("scale", None if scale is None else scale.to(layer.weight))
        gr = layer.weight.new_empty(rank, layer.in_channels, layer.out_channels)
        gc = layer.weight.new_empty(layer.geometry.tile.positions, rank)
        if init == "principal":
            _split_principal(counting.counted(base * layer.mask, scale), gr, gc)
            update = torch.einsum("ts,sio->tio", new._scaled(gc), gr)
            new.weight = nn.Parameter(base - update, requires_grad=False)
        else:  # the random factor is of size one per product, so that the other's learning rate means what it says
            for factor, zero in ((gr, init == "gr_zero"), (gc, init == "gc_zero")):
                nn.init.zeros_(factor) if zero else nn.init.normal_(factor, std=1 / sqrt(rank))
        new.Gr, new.Gc = nn.Parameter(gr), nn.Parameter(gc)
        return new

    def merged(self) -> WinogradConv3d:
        """The layer with the update added to its weights, all of them trainable; the same function up to rounding."""
        new = WinogradConv3d.__new__(WinogradConv3d)
        nn.Module.__init__(new)
        factors = ("Gr", "Gc")
        parameters = {name: p for name, p in self._parameters.items() if name not in factors}
        buffers = {"mask": self.mask.clone(), "scale": None}
        plain = {"_parameters": parameters, "_buffers": buffers, "units": "none"}
        new.__dict__.update({**self.__getstate__(), **plain})
        new.compute_all(False)
        new.weight = nn.Parameter(
            torch.einsum("ts,sio->tio", self._scaled(self.Gc.detach()), self.Gr.detach()) + self.weight.detach()
        )
        return new

    @property
    def rank(self) -> int:
        """s, the number of rank-one updates."""
        return int(self.Gr.shape[0])

    def stored(self) -> Tensor:
        """U [K, Cin, Cout]: the frozen rows plus the update, one GEMM."""
        base = self.rows(self.weight)
        with without_autocast(base.device):  # an update rounded to half precision would lose small steps
            return torch.addmm(base.flatten(1), self.rows(self._scaled(self.Gc)), self.Gr.flatten(1)).view_as(base)

    def _counted(self, u: Tensor) -> Tensor:
        return u  # units are those of Gc

    def _scaled(self, gc: Tensor) -> Tensor:
        """Gc [T, s] in units of the weights."""
        if self.scale is None:
            return gc
        return self.scale * gc if self.scale.shape[1] == 1 else self.scale @ gc


def _split_principal(weight: Tensor, gr: Tensor, gc: Tensor) -> None:
    """Fill Gr [s, Cin, Cout] and Gc [T, s] with the best approximation of `weight` [T, Cin, Cout] of their rank.

    Where `weight` has fewer directions than that, Gc is zero and Gr random, as with "gc_zero".
    """
    flat, rank = weight.flatten(1).double(), len(gr)
    values, vectors = torch.linalg.eigh(flat @ flat.T)  # [T, T] however many channels; singular values squared, rising
    left, squares = vectors[:, -rank:], values[-rank:]
    there = squares > torch.finfo(weight.dtype).eps * float(values[-1].clamp_min(0))
    roots = torch.where(there, squares, 1.0).sqrt().sqrt()
    nn.init.normal_(gr, std=1 / sqrt(rank))
    gc.copy_(left * roots * there)
    gr[there] = (left.T @ flat / roots[:, None]).view_as(gr).to(gr.dtype)[there]
