"""Which configurations GPU kernels take, and how often they are started: by tables and formulas, without a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch

pytest.importorskip("triton", reason="the GPU kernels need triton (pip install 'lrw[gpu]')")

import triton

from bench.layers import kept, picked
from lrw_kernels.triton import choose, config, conv, tables, tuned
from lrw_kernels.triton.config import Products, Transform
from lrw_kernels.triton.precision import Precision
from lrw_kernels.winograd import Tile
from verify.unit.triton.compiled_kernels import recorded

GPU = torch.device("cuda")
CUBE = Tile.of(2)
LAYER = conv.Layer(str(CUBE), (1, 1, 1), tuple(range(0, 64, 4)), "half")
FOUND = [
    tuned.Tuned("gather", "half", 64, 64, "8x32 w8", 90, "H200", "2026-11-27"),
    tuned.Tuned("scatter", "half", 64, 64, "4x64 w4", 90, "H200", "2026-11-27"),
    tuned.Tuned("products", "half", 256, 256, "128x256x64 w8 s4", 90, "H200", "2026-11-27"),
    tuned.Tuned("products", "half", 512, 512, "cublas", 90, "H200", "2026-11-27"),
    tuned.Tuned("weight_sums", "half", 256, 256, "64x64x64 w4 s4", 90, "H200", "2026-11-27"),
    tuned.Tuned("fused", "half", 64, 64, "128x32x64 w8 s3", 90, "H200", "2026-11-27"),
    tuned.Tuned("fused", "half", 128, 128, "separate", 90, "H200", "2026-11-27"),
]


@pytest.fixture
def measured() -> Iterator[None]:
    """As if there were a Hopper GPU, and these rows of it."""
    with patch.object(tuned, "table", lambda: FOUND), patch.object(choose, "capability", lambda device: 90):
        choose._nearest.cache_clear()
        yield
    choose._nearest.cache_clear()


def gathered(layer: conv.Layer, channels: int) -> Transform:
    return choose.gather(layer, tables.gather(layer.tile, "B", layer.positions, torch.device("cpu")), channels, 2, GPU)


def scattered(layer: conv.Layer, channels: int) -> Transform:
    table = tables.scatter(layer.tile, "A", layer.positions, torch.device("cpu"))
    return choose.scatter(layer, table, channels, 2, GPU)[1]


@pytest.mark.usefixtures("measured")
def test_measured_configurations_are_taken_for_channels_like_theirs() -> None:
    assert gathered(LAYER, 64) == gathered(LAYER, 80) == Transform(8, 32, 8)
    assert gathered(LAYER, 128) == config.gather(16, 4, 128, 2, packed=True)
    assert gathered(LAYER, 72) == config.gather(16, 4, 72, 2, packed=True)  # no multiple of 16, other accesses
    assert scattered(LAYER, 64) == Transform(4, 64, 4)
    assert choose.products(LAYER, 1000, 256, 256, GPU) == Products(128, 256, 64, 8, 4)
    assert choose.products(LAYER, 1000, 512, 512, GPU) is None
    assert choose.weight_sums(LAYER, 256, 256, 1000, GPU) == Products(64, 64, 64, 4, 4)
    assert choose.fused(LAYER, 64, 64, GPU) == Products(128, 32, 64, 8, 3)
    assert choose.fused(LAYER, 48, 48, GPU) == Products(128, 32, 64, 8, 3)
    assert choose.fused(LAYER, 80, 64, GPU) == config.fused("half", 80, 64, (2, 2, 2))  # more steps, more shared memory
    assert choose.fused(LAYER, 128, 128, GPU) is None


@pytest.mark.usefixtures("measured")
def test_they_are_of_one_tile_precision_and_gpu() -> None:
    for other in (replace(LAYER, tile=str(Tile.of(4))), replace(LAYER, precision="tf32")):
        assert choose.products(other, 1000, 512, 512, GPU) is not None
    with patch.object(choose, "capability", lambda device: 80):
        assert choose.products(LAYER, 1000, 512, 512, GPU) is not None
        assert choose.fused(LAYER, 128, 128, GPU) is not None
    assert choose.fused(replace(LAYER, fuse=False), 64, 64, GPU) is None


@pytest.mark.parametrize("plain", [True, False])
def test_tf32_goes_to_cublas_only_where_its_products_are_tf32(plain: bool) -> None:
    row = tuned.Tuned("products", "tf32", 512, 512, "cublas", 90, "H200", "2026-11-27")
    with (
        patch.object(tuned, "table", lambda: [row]),
        patch.object(choose, "capability", lambda device: 90),
        patch.object(choose, "matmuls_are_plain", lambda: plain),
    ):
        choose._nearest.cache_clear()
        assert (choose.products(replace(LAYER, precision="tf32"), 1000, 512, 512, GPU) is None) == (not plain)
    choose._nearest.cache_clear()


def test_the_shipped_table_is_read_and_texts_have_an_inverse() -> None:
    assert all(row.kernel in tuned.KERNELS for row in tuned.table())
    assert tuned.transform(tuned.text(Transform(8, 32, 4))) == Transform(8, 32, 4)
    assert tuned.products(tuned.text(Products(64, 128, 32, 8, 3))) == Products(64, 128, 32, 8, 3)


@pytest.mark.parametrize(
    ("kernel", "text"),
    [
        ("gather", "8x32x64 w8 s3"),
        ("products", "8x32 w8"),
        ("products", ""),
        ("copy", "8x32 w8"),
        ("gather", "cublas"),
        ("products", "separate"),
    ],
)
def test_a_table_that_means_nothing_is_refused(kernel: str, text: str) -> None:
    cells = [kernel, "half", "64", "64", text, "90", "H200", "2026-11-27"]
    with pytest.raises(ValueError, match=r"tuned\.csv"):
        tuned.parse([dict(zip(tuned.Tuned._fields, cells, strict=True))])


# Starting a kernel takes the host as long as 100 MB of memory traffic take the GPU: how often that is, is a cost.

STARTS = {
    ("c3d-3b", 1.0): (21, 21, 21),
    ("c3d-3b", 0.25): (6, 6, 6),
    ("c3d-4b", 0.5): (3, 3, 3),
    ("r3d18-layer1", 1.0): (8, 8, 24),
    ("r3d18-layer1", 0.5): (4, 4, 12),
    ("r3d18-layer4", 1.0): (3, 3, 3),
    ("unet-dec0", 0.5): (4, 4, 12),
}


@pytest.mark.skipif(triton.knobs.runtime.interpret, reason="TRITON_INTERPRET=1: nothing is recorded")
@pytest.mark.parametrize(("name", "share"), STARTS)
def test_kernels_are_started_this_often_in_half_precision(name: str, share: float) -> None:
    (layer,) = picked(name, batch=16)
    positions = tuple(range(64)) if share == 1 else kept(CUBE, share)
    of = replace(LAYER, positions=positions)

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.bfloat16, device="meta")

    x, y = (empty(layer.batch, *layer.size, channels) for channels in (layer.cin, layer.cout))
    u, counts = empty(len(positions), layer.cin, layer.cout), []
    for run in (
        lambda: conv.forward(x, u, of),
        lambda: conv.input_grad(y, u, of, layer.size),
        lambda: conv.weight_grad(x, y, of),
    ):
        with recorded() as found:
            run()
        counts.append(len(found))
    assert tuple(counts) == STARTS[name, share]


@pytest.mark.skipif(triton.knobs.runtime.interpret, reason="TRITON_INTERPRET=1: nothing is recorded")
@pytest.mark.parametrize("precision", ["half", "tf32", "ieee"])
@pytest.mark.parametrize("padding", [(1, 1, 1), (0, 0, 0)])  # the second takes the adjoint
def test_every_kernel_is_started_on_the_tensors_gpu(precision: Precision, padding: tuple[int, int, int]) -> None:
    of, dtype = replace(LAYER, precision=precision, padding=padding), torch.bfloat16 if precision == "half" else None
    inside: list[int] = []

    @contextmanager
    def on(device: torch.device) -> Iterator[None]:
        before = len(found)
        yield
        inside.append(len(found) - before)

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    size = (8, 8, 8) if any(padding) else (6, 6, 6)
    x, u, y = empty(2, 8, 8, 8, 64), empty(len(of.positions), 64, 64), empty(2, *size, 64)
    with recorded() as found, patch.object(conv, "_on", on):
        conv.forward(x, u, of)
        conv.input_grad(y, u, of, (8, 8, 8))
        conv.weight_grad(x, y, of)
    assert len(inside) == 3
    assert sum(inside) == len(found) > 0
