"""Resampling: any neighbours; channels of wider buffers."""

import numpy as np
import torch
from hypothesis import given, settings

from lrw_kernels.codegen.machine import NEON, Machine
from lrw_kernels.cpu.operators.resample import resample
from verify.tolerances import assert_close
from verify.unit.cpu.operators import (
    EPS,
    Buffer,
    Input,
    Triple,
    assert_lowers,
    every_machine,
    from_torch,
    inputs,
    run,
    to_torch,
    triples,
)

SETTINGS = settings(max_examples=30)


def neighbours(n: int, outputs: int) -> tuple[list[int], list[int], list[float]]:
    """Low, high and share of torch's linear interpolation without aligned corners."""
    at = np.maximum((np.arange(outputs) + 0.5) * (n / outputs) - 0.5, 0)
    low = np.minimum(at.astype(int), n - 1)
    return low.tolist(), np.minimum(low + 1, n - 1).tolist(), (at - low).tolist()


@every_machine
@SETTINGS
@given(inputs, triples(1, 9))
def test_trilinear_resampling(machine: Machine, case: Input, out: Triple) -> None:
    low, high, share = zip(*(neighbours(n, m) for n, m in zip(case.size[1:4], out, strict=True)), strict=True)
    expected = from_torch(torch.nn.functional.interpolate(to_torch(case.x), out, mode="trilinear"))
    source, target = Buffer(case.size, *case.wider, case.x), Buffer(expected.shape, *case.wider)
    run(resample(source.view, target.view, machine, low=low, high=high, share=share), case.threads)
    assert_close(target.check(), expected, 12 * EPS * float(np.abs(case.x).max()), f"{case} {out}")


@every_machine
@SETTINGS
@given(inputs, triples(1, 9))
def test_nearest_resampling(machine: Machine, case: Input, out: Triple) -> None:
    low = tuple([i * n // m for i in range(m)] for n, m in zip(case.size[1:4], out, strict=True))
    zeros = tuple([0.0] * m for m in out)
    expected = case.x[:, low[0]][:, :, low[1]][:, :, :, low[2]]
    source, target = Buffer(case.size, *case.wider, case.x), Buffer(expected.shape, *case.wider)
    run(resample(source.view, target.view, machine, low=low, high=low, share=zeros), case.threads)
    np.testing.assert_array_equal(target.check(), expected)


def test_its_kernels_lower_to_another_machine() -> None:
    x, zeros = Buffer((1, 1, 1, 1, 3), 0, 0).view, ([0], [0], [0])
    made = [
        resample(x, x, NEON, low=zeros, high=zeros, share=zeros),
        resample(x, x, NEON, low=zeros, high=zeros, share=([0.5], [0], [0])),
    ]
    assert len({step.kernel for of in made for step in of.steps}) == 2
    assert_lowers(made)
