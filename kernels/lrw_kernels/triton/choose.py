"""Which configuration a kernel takes on a device: a measured one where there is one near enough, else by formula."""

from functools import cache

import torch

from lrw_kernels.triton import config, tuned
from lrw_kernels.triton.config import Products, Transform
from lrw_kernels.triton.layer import Layer
from lrw_kernels.triton.precision import Precision, matmuls_are_plain
from lrw_kernels.triton.tables import Gather, Scatter
from lrw_kernels.winograd import Tile


def gather(
    layer: Layer, table: Gather, channels: int, itemsize: int, device: torch.device, *, by_tile: bool = False
) -> Transform:
    """For `launch.gather`."""
    found = None if by_tile else _found("gather", layer.tile, layer.precision, channels, channels, device)
    if found is not None:
        return tuned.transform(found)
    heights, widths = len(table.h[0]), len(table.w[0])
    packed = table.packed(layer.precision)
    return config.gather(heights * widths, widths, channels, itemsize, packed=packed, by_tile=by_tile)


def scatter(layer: Layer, table: Scatter, channels: int, itemsize: int, device: torch.device) -> tuple[int, Transform]:
    """For `launch.scatter`: planes of a cell that a program forms, and its blocks."""
    outputs = Tile.parse(layer.tile).outputs
    depths, chosen = config.scatter(outputs, len(table.w), table.reach, channels, itemsize)
    found = _found("scatter", layer.tile, layer.precision, channels, channels, device) if table.reach == 1 else None
    return depths, chosen if found is None else tuned.transform(found)


def products(layer: Layer, rows: int, steps: int, columns: int, device: torch.device) -> Products | None:
    """For V [rows, steps] times U [steps, columns] at each position; None for cuBLAS."""
    if _plain(layer.precision):
        return None
    found = _found("products", layer.tile, layer.precision, steps, columns, device)
    if found == tuned.CUBLAS and (layer.precision == "half" or not matmuls_are_plain()):
        return None  # it would be no TF32 where torch's matrix products are plain
    if found not in (None, tuned.CUBLAS):
        return tuned.products(found)
    return config.products(layer.precision, rows, columns, steps, capability(device))


def weight_sums(layer: Layer, rows: int, columns: int, tiles: int, device: torch.device) -> Products | None:
    """For V^T dM [rows, columns], sums over many tiles; None for cuBLAS."""
    if _plain(layer.precision):
        return None
    found = _found("weight_sums", layer.tile, layer.precision, rows, columns, device)
    return config.weight_sums(layer.precision, rows, columns, tiles) if found is None else tuned.products(found)


def fused(layer: Layer, steps: int, columns: int, device: torch.device) -> Products | None:
    """For products and inverse transform in one kernel; None where they are two."""
    chosen = config.fused(layer.precision, steps, columns, Tile.parse(layer.tile).outputs) if layer.fuse else None
    if chosen is None:
        return None
    found = _found("fused", layer.tile, layer.precision, steps, columns, device)
    if found == tuned.SEPARATE:
        return None
    measured = None if found is None else tuned.products(found)
    return measured if measured and measured.steps == chosen.steps else chosen  # shared memory has room for no more


@cache
def capability(device: torch.device) -> int:
    """90 for compute capability 9.0; 0 where there is none."""
    major, minor = torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)
    return 10 * major + minor


def _plain(precision: Precision) -> bool:
    """float32 throughout: there are no tensor cores to gain from, and cuBLAS's kernels are good."""
    return precision == "ieee" and matmuls_are_plain()


def _found(kernel: str, tile: str, precision: Precision, cin: int, cout: int, device: torch.device) -> str | None:
    """Rows are of channels in multiples of 16: others are loaded one by one, which takes more registers."""
    if cin % 16 or cout % 16:
        return None
    return _nearest(kernel, tile, precision, cin, cout, capability(device))


@cache
def _nearest(kernel: str, tile: str, precision: Precision, cin: int, cout: int, capability: int) -> str | None:
    return tuned.find(kernel, Tile.parse(tile).name, precision, cin, cout, capability)
