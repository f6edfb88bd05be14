"""Channels first into channels last and back, of any number of channels, on every machine configuration's vectors."""

import pytest
import torch

from lrw.backends.layouts import channels_first, channels_last
from lrw_kernels.codegen.machine import Machine
from verify.unit.cpu.operators import every_machine

CHANNELS = (1, 2, 3, 5, 8, 9, 20, 300)  # a few, whose numbers are picked by lanes, and whole vectors with a rest
SIZES = ((17, 13, 11), (1, 1, 3), (20, 21, 22))  # the last one is several work items


@every_machine
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("channels", CHANNELS)
def test_all_orders_hold_the_same_numbers(channels: int, dtype: torch.dtype, machine: Machine) -> None:
    for batch, size in zip((1, 2, 1), SIZES, strict=True):
        x = torch.arange(batch * channels * size[0] * size[1] * size[2], dtype=dtype).view(batch, channels, *size)
        last = channels_last(x.permute(0, 2, 3, 4, 1), machine, 2)
        assert torch.equal(last, x.permute(0, 2, 3, 4, 1))
        first = channels_first(last.contiguous(), machine, 2)
        assert first.is_contiguous()
        assert torch.equal(first, x)
