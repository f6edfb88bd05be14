"""A layer at inference: torch contiguous, in channels_last_3d and pre-packed by oneDNN, the fastest of which counts,
and ours at each share of the columns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import geometric_mean

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import mkldnn

from bench import page, rows
from bench.cpu import stages
from bench.gate import judged, output_bound
from bench.layers import PADDING, SHARES, Layer, kept
from bench.page import number
from lrw import backends
from lrw.geometry import Geometry
from lrw.ops import domain_conv3d, transform_weight
from lrw.timing import interleaved
from lrw_kernels.choice.estimate import cheapest_tile
from lrw_kernels.winograd import Tile, winograd_cost


@dataclass(frozen=True)
class Row(rows.Row):
    """A layer at a share of its columns, `kept` of all `positions`; times in milliseconds, the error over the largest
    output. On the backend "cpu" also where the time goes: `kernels_ms` on ready buffers, `digest_ms` of the weights,
    `transforms_ms`, and the rate of the products, as a share of the machine's `peak_gflops`."""

    case: str
    tile: str
    backend: str
    share: float
    kept: int
    positions: int
    torch_form: str
    torch_ms: float
    lrw_ms: float
    speedup: float
    error: float
    multiplies: int
    path: str = ""
    kernels_ms: float | None = None
    digest_ms: float | None = None
    transforms_ms: float | None = None
    gemm_gflops: float | None = None
    peak_gflops: float | None = None
    of_peak: float | None = None
    scratch_mib: float | None = None

    @property
    def kind(self) -> str:
        """What it is averaged with."""
        return f"{self.share:.0%} of the columns"

    @property
    def line(self) -> str:
        """The row for people."""
        columns, torch_ms = f"{self.kept:4d}/{self.positions}", f"torch {self.torch_ms:8.2f} ms ({self.torch_form})"
        ours = f"lrw {self.lrw_ms:8.2f} ms  {self.speedup:5.2f}x  error {self.error:.1e}"
        products = f"  products {self.gemm_gflops:5.0f} GFLOP/s ({self.of_peak:.0%} of peak)" if self.path else ""
        return f"{self.case:16s} {self.tile:16s} {columns}  {torch_ms}  {ours}{products}"


def measure(layer: Layer, tile: Tile, backend: str, seconds: float) -> list[Row]:
    """A row for each share of the columns. Raises Red, with nothing timed, where one is beyond its bound."""
    x = torch.randn(1, layer.cin, *layer.size)
    weight = torch.randn(layer.cout, layer.cin, 3, 3, 3) / (27 * layer.cin) ** 0.5
    last, u = x.to(memory_format=torch.channels_last_3d), transform_weight(weight, tile)
    name = backends.choose(x.device).name if backend == "auto" else backend
    candidates: dict[str, Callable[[], object]] = {**_torch_forms(x, last, weight)}
    forms, shares = list(candidates), {share: _geometry(tile, share) for share in SHARES}
    errors = {}
    for share, geometry in shares.items():
        own = u if share == 1 else u[list(geometry.positions)].contiguous()
        candidates[f"lrw {share}"] = run = _winograd(last, own, geometry, name)
        errors[share] = _gated(layer, run(), x, weight, own, geometry)
        if name == "cpu":
            parts = stages.stages(layer, geometry, last, own)
            candidates |= {f"{part} {share}": call for part, call in parts.items()}
    if name == "cpu":
        candidates["peak"] = stages.peak()
    with torch.inference_mode():
        times = {key: 1e3 * t for key, t in interleaved(candidates, seconds=seconds, rounds=(7, 100)).items()}
    form = min(forms, key=times.__getitem__)
    return [
        Row(layer.name, tile.name, name, share, geometry.columns, tile.positions, form, times[form],
            times[f"lrw {share}"], times[form] / times[f"lrw {share}"], errors[share],
            winograd_cost(tile, layer.cin, layer.cout, layer.size, kept=geometry.kept).multiplies,
            **(stages.figures(layer, geometry, times, share) if name == "cpu" else {}))
        for share, geometry in shares.items()
    ]  # fmt: skip


def usual_tile(layer: Layer) -> Tile:
    """What `tile="auto"` takes for the dense layer."""
    return cheapest_tile((3, 3, 3), layer.cin, layer.cout, layer.size)


def table(found: Sequence[Row]) -> list[str]:
    """Speed-up over torch by layer and share of columns, and what products reach."""
    shares = sorted({row.share for row in found}, reverse=True)
    head = ("layer", "tile", "torch ms", *(f"{share:.0%} of columns" for share in shares), "products", "digest")
    lines = []
    for case in dict.fromkeys(row.case for row in found):
        own = {row.share: row for row in found if row.case == case}
        dense = own[shares[0]]
        digest = None if dense.digest_ms is None else dense.digest_ms / dense.lrw_ms
        lines.append([case, dense.tile, f"{dense.torch_ms}", *(f"{own[share].speedup:.1f}x" for share in shares),
                      number(dense.of_peak, ".0%", " of peak"), number(digest, ".0%", " of the call")])  # fmt: skip
    means = [f"{geometric_mean([row.speedup for row in found if row.share == share]):.1f}x" for share in shares]
    lines.append(["geometric mean", "", "", *means, "", ""])
    return page.tight(page.table(head, lines))


def _geometry(tile: Tile, share: float) -> Geometry:
    return Geometry(tile, PADDING, None if share == 1 else kept(tile, share), fixed=share < 1)


def _torch_forms(x: Tensor, last: Tensor, weight: Tensor) -> dict[str, Callable[[], Tensor]]:
    conv = nn.Conv3d(weight.shape[1], weight.shape[0], 3, padding=1, bias=False)
    conv.weight = nn.Parameter(weight, requires_grad=False)
    packed, dense = mkldnn.to_mkldnn(conv.eval()), x.to_mkldnn()
    weight_last = weight.to(memory_format=torch.channels_last_3d)
    return {
        "contiguous": lambda: F.conv3d(x, weight, padding=1),
        "channels_last": lambda: F.conv3d(last, weight_last, padding=1),
        "prepacked": lambda: packed(dense),
    }


def _winograd(x: Tensor, u: Tensor, geometry: Geometry, backend: str) -> Callable[[], Tensor]:
    arguments = geometry.arguments
    return lambda: domain_conv3d(x, u, None, arguments, backend)


def _gated(layer: Layer, y: Tensor, x: Tensor, weight: Tensor, u: Tensor, geometry: Geometry) -> float:
    if geometry.kept is None:
        exact = F.conv3d(x.double(), weight.double(), padding=1)
    else:
        exact = domain_conv3d(x.double(), u.double(), None, geometry.arguments, "torch")
    return judged(layer.name, y, exact, output_bound(geometry.tile, geometry.kept, u, x)).largest
