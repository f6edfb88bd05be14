"""What all of C3D needs as a library, at the size of the paper: known without its 734 MiB of weights."""

from typing import Any

import numpy as np
import pytest
import torch

from lrw.nets import C3D
from lrw.trace import convolutions, trace
from lrw_kernels.aot.abi import exported_symbols
from lrw_kernels.aot.archive import archive
from lrw_kernels.aot.code import Code
from lrw_kernels.aot.lower import lower
from lrw_kernels.aot.targets import find_target
from lrw_kernels.network.graph import Network
from lrw_kernels.network.operators import Winograd
from lrw_kernels.program import winograd
from lrw_kernels.program.assemble import assemble

pytestmark = pytest.mark.slow

MIB = 1 << 20
SIZE = (16, 112, 112)
ZERO = torch.zeros(())


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> Network:
    """C3D of weights that are all the same zero; of those of Winograd layers not even that is kept."""
    with torch.device("meta"):
        net = C3D(3, 101, SIZE, norm=False)
    for module in net.modules():
        for name in [name for name, _ in module.named_parameters(recurse=False)]:
            shape = getattr(module, name).shape
            setattr(module, name, torch.nn.Parameter(ZERO.expand(shape), requires_grad=False))

    def unpacked(*_: Any) -> Any:
        return np.zeros(0, np.float32)

    monkeypatch.setattr(convolutions, "array", lambda t: t.numpy())
    monkeypatch.setattr(winograd, "_packed", unpacked)
    return trace(net, torch.zeros(1, 3, *SIZE), "c3d")


def test_c3d_is_a_library_of_512_kib_and_a_workspace_of_64_mib_at_most(whole: Network) -> None:
    made = assemble(whole, find_target("aarch64-linux-gnu").machine)
    assert [type(layer.node.operator) for layer in made.layers].count(Winograd) == 8
    assert made.workspace_bytes <= 64 * MIB
    code = archive("network.o", lower(Code.of(made)), exported_symbols("c3d"))
    assert len(code) <= MIB // 2
