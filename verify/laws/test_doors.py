"""One network through all three doors: as eager layers, as a program in this process, as a library.

Each is judged by the float64 interpreter of networks, with the rounding errors its own operators may make.
"""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lrw
from lrw.accelerate import PROGRAM
from lrw.export import trace
from lrw_kernels.aot import run_network
from verify.programs.errors import arithmetic
from verify.programs.exported import ARM, HERE, NATIVE, NETS, Builder, case, need
from verify.strategies import Array
from verify.tolerances import USELESS, assert_close
from verify.unit.trace.nets import settled

pytestmark = pytest.mark.slow


def network(name: str) -> tuple[nn.Module, Tensor]:
    """What `case(name)` was traced from, and its input."""
    torch.manual_seed(1)
    build, shape = NETS[name]
    net = settled(build())
    channels = torch.from_numpy(case(name).x).permute(0, 4, 1, 2, 3).contiguous()
    assert tuple(channels.shape) == shape
    return net, channels


def as_array(y: Tensor, like: Array) -> Array:
    """[N, D, H, W, C] as networks have it."""
    return np.moveaxis(y.numpy(), 1, -1).reshape(like.shape)


@pytest.mark.parametrize("name", NETS)
def test_all_doors_compute_the_same_function(name: str, built: Builder) -> None:
    target = NATIVE if name in HERE else ARM
    need(target=target)
    net, x = network(name)
    ((exact, tolerance),) = case(name).expected
    assert (tolerance <= USELESS * np.abs(exact).max(axis=(0, 1, 2, 3))).all(), "the bound itself must mean something"
    with torch.no_grad():
        convolutions = any(isinstance(module, nn.Conv3d) for module in net.modules())
        eager = lrw.to_winograd(net, tile=2) if convolutions else net  # has Winograd layers already
        assert_close(as_array(net(x), exact), exact, tolerance, f"{name} in torch")
        assert_close(as_array(eager(x), exact), exact, tolerance, f"{name} as layers")
        fast = lrw.accelerate(net, x)
        y = fast(x)
    assert fast.report.last == PROGRAM
    ((own, bound),) = arithmetic(trace(net, x), x)
    np.testing.assert_allclose(own, exact, rtol=0, atol=1e-6 * float(np.abs(exact).max()))
    assert_close(as_array(y, exact), own, bound, f"{name} as a program")
    (library,) = run_network(built(name, target), np.ascontiguousarray(case(name).x))
    assert_close(library, exact, tolerance, f"{name} as a library")
