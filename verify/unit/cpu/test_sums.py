"""What a Winograd convolution leaves for the norm that reads its outputs: the norm is that of what was written."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lrw
from lrw_kernels.codegen.machine import Machine, host
from lrw_kernels.cpu import layout
from lrw_kernels.cpu.operators.norm import normalise
from lrw_kernels.cpu.step import Epilogue
from lrw_kernels.cpu.winograd import conv
from lrw_kernels.cpu.winograd.plan import Plan
from lrw_kernels.cpu.winograd.problem import Problem
from lrw_kernels.network.operators import Normalise
from lrw_kernels.program.bind import Bound, placed
from lrw_kernels.program.collect import Collector
from lrw_kernels.winograd import Tile
from verify.tolerances import assert_close
from verify.unit.cpu.operators import EPS, Buffer, every_machine, to_torch, triples

TILES = [Tile.of(2), Tile.of((1, 2, 4), (3, 3, 3), origin=(0, 1, 3)), Tile.of((4, 1, 1), (3, 1, 1))]


def problem(machine: Machine, tile: Tile, batch: int, size: tuple[int, int, int], blocks: tuple[int, ...]) -> Problem:
    """Of 5 input channels; `blocks` of output channels keep all positions but one each, or one block all of them."""
    kept = [tuple(p for p in range(tile.positions) if p != i) for i in range(len(blocks))]
    cut = tuple(zip(blocks, kept, strict=True)) if len(blocks) > 1 else None
    d, h, w = (taps // 2 for taps in tile.kernel_size)
    return Problem(
        tile=str(tile), padding=(d, h, w), kept=None, fixed=False, batch=batch, input_size=size, cin=5,
        cout=sum(blocks), kind="float32", element="float32", machine=machine, threads=2, sized=True, blocks=cut,
        aligned=False,
    )  # fmt: skip


@every_machine
@settings(max_examples=20)
@given(
    st.sampled_from(TILES), st.integers(1, 3), triples(3, 9), st.sampled_from([(3,), (16,), (19,), (16, 32)]),
    st.integers(1, 4), st.sampled_from([0.0, 1e3]), st.sampled_from([1.0, 1e4]), st.booleans(),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_norm_of_what_a_convolution_wrote(
    machine: Machine, tile: Tile, batch: int, size: tuple[int, int, int], blocks: tuple[int, ...], panels: int,
    mean: float, first: float, alone: bool, seed: int,
) -> None:  # fmt: skip
    """Ragged tiles, turns that hold several samples, last channels that fill no vector, blocks, groups of all channels
    and of each alone, means far from 0, first numbers far from all others."""
    random, p = np.random.default_rng(seed), problem(machine, tile, batch, size, blocks)
    channels, outputs = p.cout, (batch, *p.output_size, p.cout)
    x = Buffer((batch, *size, 5), 0, 0, random.standard_normal((batch, *size, 5)).astype(np.float32))
    x.numbers[:, 0, 0, 0] *= first
    y, normal = Buffer(outputs, 0, 0), Buffer(outputs, 0, 0)
    gain, offset, bias = random.standard_normal((3, channels)).astype(np.float32)
    weights = [
        layout.panels(random.standard_normal((q.columns, 5, q.cout)).astype(np.float32), machine) for q in p.parts
    ]
    to = Collector(p.threads)
    plan = Plan("tiles", panels * 2, 2, 8)
    made = conv.forward(
        p, x.view, y.view, weights, Epilogue(bias + np.float32(mean)), plan, lambda size: to.buffer(size, 0, 1)
    )
    assert made.sums is not None
    groups = channels if alone else 1
    of = Normalise(groups, 1e-3, gain, offset)
    after = normalise(y.view, None, normal.view, of, machine, made.sums)
    assert len(after.steps) == 2
    to.add(0, made)
    to.add(1, after)
    program = to.program("", ())
    scratch = np.full(program.buffer_bytes // 4 + 16, np.nan, np.float32)
    Bound(program, placed(program)).run(-(-scratch.ctypes.data // 64) * 64, (), p.threads)
    wide = [torch.from_numpy(vector).double() for vector in (gain, offset)]
    expected = torch.group_norm(to_torch(y.numbers), groups, *wide, 1e-3).permute(0, 2, 3, 4, 1).numpy()
    assert_close(normal.check(), expected, 16 * EPS * (1 + np.abs(expected) + np.abs(offset)), str(p))


@pytest.mark.parametrize(
    ("plan", "blocks"), [(Plan("positions", 8, 2, 1), (16,)), (Plan("tiles", 8, 2, 1), (16, 3))], ids=["path", "blocks"]
)
def test_where_nothing_is_left_for_a_norm(plan: Plan, blocks: tuple[int, ...]) -> None:
    """By positions no thread has a tile's outputs alone; blocks that fill no vectors would write each other's sums."""
    p = problem(host(), TILES[0], 1, (6, 6, 6), blocks)
    x, y = Buffer((1, 6, 6, 6, 5), 0, 0), Buffer((1, *p.output_size, p.cout), 0, 0)
    weights = [layout.panels(np.zeros((q.columns, 5, q.cout), np.float32), p.machine) for q in p.parts]
    asked = list[int]()
    made = conv.forward(p, x.view, y.view, weights, plan=plan, keep=lambda size: asked.append(size) or 0)
    assert made.sums is None
    assert asked == []


class TwoNorms(torch.nn.Module):
    """Two norms that read one convolution, others between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.between = (torch.nn.Conv3d(32, 32, 3, padding=1) for _ in range(2))
        self.alone, self.grouped = torch.nn.InstanceNorm3d(32), torch.nn.GroupNorm(4, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        return self.grouped(y) + self.between(self.alone(y))


def test_sums_stay_until_the_last_norm_that_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    left, made = list[bool](), conv._Pass._sums
    monkeypatch.setattr(conv._Pass, "_sums", lambda of, keep: left.append((sums := made(of, keep)) is not None) or sums)
    torch.manual_seed(0)
    net, x = TwoNorms().eval(), torch.randn(1, 32, 24, 24, 24)
    fast = lrw.accelerate(net, x, measure=False)
    assert left == [True]
    with torch.no_grad():
        expected = net.double()(x.double())
        assert float((fast(x) - expected).abs().max()) < 1e-4 * float(expected.abs().max())
