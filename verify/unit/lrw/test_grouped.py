"""Blocks of output channels in one pass: what block by block gives, on every path, and who takes which way."""

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lrw import backends
from lrw.backends import cpu
from lrw.geometry import Geometry
from lrw.nn import GroupedConv3d
from lrw.ops import domain_conv3d
from lrw_kernels.cpu.winograd import problem
from lrw_kernels.program.layer import dense, runner
from lrw_kernels.winograd import Block, Tile, domain_error

EPS = 2.0**-23


@st.composite
def layers(draw: st.DrawFn) -> tuple[GroupedConv3d, Tensor]:
    """A layer of one to four blocks, some without a column, and an input: channels first or last, small or larger."""
    tile = Tile.of(draw(st.sampled_from([2, (1, 2, 4), (2, 3, 2)])), draw(st.sampled_from([3, (1, 3, 3)])))
    seed = draw(st.integers(0, 2**20))
    rng = np.random.default_rng(seed)

    def block() -> Block:
        share = draw(st.sampled_from([0.0, 0.2, 0.5, 1.0]))
        kept = rng.choice(tile.positions, round(share * tile.positions), replace=False)
        return draw(st.integers(1, 40)), tuple(sorted(int(p) for p in kept))

    blocks = [block() for _ in range(draw(st.integers(1, 4)))]
    if not any(kept for _, kept in blocks):
        blocks.append((3, (0,)))
    return layer_of(blocks, tile, draw(st.integers(1, 20)), seed, bias=draw(st.booleans())), torch.randn(
        draw(st.integers(1, 2)), 1, *(draw(st.integers(1, 12)) for _ in range(3))
    )


def layer_of(blocks: list[Block], tile: Tile, cin: int, seed: int, *, bias: bool = True) -> GroupedConv3d:
    padding = tuple(r // 2 for r in tile.kernel_size)
    layer = GroupedConv3d(cin, blocks, Geometry(tile, padding), bias=bias, backend="cpu").requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for p in layer.parameters():
        p.copy_(torch.randn(p.shape, generator=generator))
    return layer


def in_one_pass(layer: GroupedConv3d, x: Tensor) -> Tensor:
    """With panels made for the call, made to be kept, and kept."""
    with patch.object(backends, "block_by_block", side_effect=AssertionError("not in one pass")):
        first, second, third = (layer(x) for _ in range(3))
    assert torch.equal(first, second)
    assert torch.equal(first, third)
    return first


def block_by_block(layer: GroupedConv3d, x: Tensor) -> Tensor:
    """By compressed layers on the same input."""
    parts, geometry = [], layer.geometry
    biases = [None] * len(layer.blocks) if layer.bias is None else layer.bias.split([n for n, _ in layer.blocks])
    for u, bias, (channels, kept) in zip(layer.weight, biases, layer.blocks, strict=True):
        if kept:
            parts.append(domain_conv3d(x, u, bias, replace(geometry, kept=kept).arguments, layer.backend))
        else:
            level = x.new_zeros(channels) if bias is None else bias
            size = (len(x), channels, *geometry.output_size(x.shape[2:]))
            parts.append(level.view(1, -1, 1, 1, 1).expand(size))
    return torch.cat(parts, dim=1)


def assert_right(layer: GroupedConv3d, y: Tensor, x: Tensor) -> None:
    """Against float64 block by block, within the bound of each block."""
    exact = block_by_block(layer.double(), x.double())
    layer.to(x.dtype)
    at = 0
    for u, (channels, kept) in zip(layer.weight, layer.blocks, strict=True):
        error = (y[:, at : at + channels].double() - exact[:, at : at + channels]).abs().max()
        norms = u.norm(dim=1).amax(dim=1).numpy() if kept else np.zeros(1)
        largest = float(x.abs().max())
        bound = domain_error(layer.geometry.tile, kept, norms, largest, layer.in_channels, EPS) if kept else 0.0
        rounding = 0.0 if layer.bias is None else EPS * float(layer.bias.abs().max() + exact.abs().max())
        assert float(error) <= bound + rounding
        at += channels


@settings(max_examples=5)  # each compiles an input transform
@given(layers(), st.booleans(), st.integers(1, 2))
def test_one_pass_gives_what_the_blocks_give(
    drawn: tuple[GroupedConv3d, Tensor], channels_last: bool, threads: int
) -> None:
    layer, x = drawn
    x = x.expand(-1, layer.in_channels, -1, -1, -1).contiguous()
    x = torch.randn_like(x)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last_3d)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        y = in_one_pass(layer, x)
    finally:
        torch.set_num_threads(before)
    assert y.is_contiguous(memory_format=torch.channels_last_3d if channels_last else torch.contiguous_format) or (
        1 in y.shape
    )
    assert_right(layer, y, x)


@pytest.mark.parametrize(
    ("path", "size", "widths"),
    [("tiles", (4, 24, 24), (32, 16)), ("positions", (2, 7, 7), (40, 64)), ("positions", (2, 7, 7), (16, 5, 16))],
)
def test_both_paths_of_the_kernels_know_blocks(path: str, size: tuple[int, int, int], widths: tuple[int, ...]) -> None:
    tile = Tile.of(2)
    blocks = [(width, tuple(range(i, 64, 3 + i))) for i, width in enumerate(widths)]
    layer = layer_of(blocks, tile, 64, 1)
    x = torch.randn(1, 64, *size)
    y = in_one_pass(layer, x)
    p = problem.of(str(tile), (1, 1, 1), layer.geometry.kept, True, 1, size, (64, sum(widths)), "float32",
                   cpu.host(), torch.get_num_threads(), layer.blocks)  # fmt: skip
    assert runner(p, dense(p, problem.FORWARD)).path == path
    assert_right(layer, y, x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes_are_computed_too(dtype: torch.dtype) -> None:
    layer = layer_of([(16, (0, 5, 9)), (24, tuple(range(64)))], Tile.of(2), 8, 2).to(dtype)
    x = torch.randn(1, 8, 6, 6, 6).to(dtype)
    assert in_one_pass(layer, x).dtype == dtype
    torch.testing.assert_close(in_one_pass(layer, x), block_by_block(layer, x))


def test_changed_weights_are_seen_in_any_block() -> None:
    layer = layer_of([(16, (0, 5, 9)), (24, (1, 5))], Tile.of(2), 8, 3)
    x = torch.randn(1, 8, 6, 6, 6)
    before = [layer(x) for _ in range(3)][-1]
    for u in layer.weight:
        u.mul_(2)
        after = layer(x)
        torch.testing.assert_close(after, block_by_block(layer, x))
        assert not torch.equal(after, before)
        before = after


def test_gradients_other_backends_and_compiled_layers_give_the_same() -> None:
    layer = layer_of([(16, (0, 5, 9)), (24, (1, 5))], Tile.of(2), 8, 4)
    x = torch.randn(1, 8, 6, 6, 6)
    for _ in range(3):
        expected = layer(x)
    wanted = x.clone().requires_grad_()
    layer(wanted).sum().backward()
    assert wanted.grad is not None
    layer.backend = "torch"
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), expected, rtol=1e-4, atol=1e-4)


def test_what_is_wrong_is_named_on_later_calls_too() -> None:
    layer = layer_of([(16, (0, 5, 9)), (24, (1, 5))], Tile.of(2), 8, 5)
    x = torch.randn(1, 8, 6, 6, 6)
    for _ in range(3):
        layer(x)
    for wrong, message in (
        (x[:, :5], "input: 5 channels"),
        (x.double(), "dtype"),
        (x[0, 0], "input: shape"),
    ):
        with pytest.raises(ValueError, match=message):
            layer(wrong)
    layer.backend = "nosuch"
    with pytest.raises(ValueError, match="backend"):
        layer(x)
    assert layer_of([(16, (0, 5))], Tile.of(2), 8, 6)(x[:0]).shape == (0, 16, 6, 6, 6)


def test_parameters_of_other_shapes_are_refused_not_read_out_of_bounds() -> None:
    x = torch.randn(1, 4, 5, 5, 5)
    geometry = Geometry(Tile.of(2, 3), (1, 1, 1))
    for change in ("bias", "outputs", "columns"):
        layer = GroupedConv3d(4, [(16, (0, 5)), (16, (3,))], geometry, bias=True)
        if change == "bias":
            layer.bias = nn.Parameter(torch.zeros(3))
        else:
            whole = layer.weight[0].detach()
            layer.weight[0] = nn.Parameter(whole[..., :8] if change == "outputs" else whole[:1])
        with torch.no_grad(), pytest.raises((ValueError, RuntimeError)):
            layer(x)


def test_a_state_dict_that_is_refused_changes_nothing() -> None:
    layer = GroupedConv3d(4, [(16, (0, 5)), (16, (3, 7))], Geometry(Tile.of(2, 3), (1, 1, 1)), bias=True)
    x = torch.randn(1, 4, 5, 5, 5)
    before = layer(x)
    state = {key: t + 1 if t.is_floating_point() else t.flip(0) for key, t in layer.state_dict().items()}
    with pytest.raises(ValueError, match="kept: positions must rise"):
        layer.load_state_dict(state)
    assert torch.equal(layer(x), before)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [([(16, ())], "kept: no position"), ([(16, (0, 64))], "kept: position 64 outside"), ([(16, (5, 3))], "must rise")],
)
def test_blocks_that_are_none_are_refused(blocks: list[Block], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GroupedConv3d(4, blocks, Geometry(Tile.of(2, 3), (1, 1, 1)), bias=True)


def test_a_geometry_that_is_set_is_that_of_all_blocks() -> None:
    layer = layer_of([(16, (0, 5, 9)), (24, (1, 5))], Tile.of(2), 8, 7)
    x = torch.randn(1, 8, 6, 6, 6)
    layer.backend, plain = "torch", layer(x)
    layer.geometry = replace(layer.geometry, rectified=True)
    assert not torch.allclose(layer(x), plain)
    torch.testing.assert_close(layer(x), block_by_block(layer, x))


def test_more_blocks_than_a_program_has_sections_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrw_kernels.program.layer.MOST_BLOCKS", 1)
    layer = layer_of([(16, (0, 5, 9)), (23, (1, 5))], Tile.of(2), 7, 3)
    with pytest.raises(ValueError, match=r"^blocks: 2; accepted are up to 1$"), torch.no_grad():
        layer(torch.randn(1, 7, 5, 6, 7))
