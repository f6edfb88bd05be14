"""GPU kernels compiled for Ampere and Hopper without a GPU: nothing spills, accesses are wide, tensor cores used."""

from collections.abc import Iterator
from unittest.mock import patch

import pytest
import torch

from lrw_kernels.winograd import Tile

pytest.importorskip("triton", reason="the GPU kernels need triton (pip install 'lrw[gpu]')")

import triton

from lrw_kernels.triton import choose, conv
from lrw_kernels.triton.precision import Precision
from verify.unit.compiled_kernels import MODULES, SHARED, Launch, recorded

pytestmark = pytest.mark.skipif(triton.knobs.runtime.interpret, reason="TRITON_INTERPRET=1: nothing is compiled")

LAYERS = {
    "first": (3, 64, (16, 112, 112)),
    "dec0": (32, 32, (64, 64, 64)),
    "layer1": (64, 64, (16, 56, 56)),
    "conv2a": (64, 128, (16, 56, 56)),
    "layer2": (128, 128, (8, 28, 28)),
    "conv3b": (256, 256, (8, 28, 28)),
    "odd": (3, 5, (5, 7, 9)),
    "single": (1, 1, (1, 1, 1)),  # of one sample: what is 1 is a constant to Triton
}
CUBE, FLAT, LARGE = "F(2x2x2,3x3x3)", "F(1x2x2,1x3x3)", "F(4x4x4,3x3x3)"
DTYPES = {"half": (torch.bfloat16, torch.float16), "tf32": (torch.float32,), "ieee": (torch.float32,)}


def launches(layer: str, tile: str, precision: Precision, dtype: torch.dtype) -> list[Launch]:
    """All that a training step of the layer starts, a quarter of the columns kept."""
    (cin, cout, size), batch = LAYERS[layer], 1 if layer == "single" else 16
    parsed = Tile.parse(tile)
    kept, padding = tuple(range(0, parsed.positions, 4)), tuple(r // 2 for r in parsed.kernel_size)
    of = conv.Layer(str(parsed), (padding[0], padding[1], padding[2]), kept, precision)

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    x, u, y = empty(batch, *size, cin), empty(len(kept), cin, cout), empty(batch, *size, cout)
    with recorded() as found:
        conv.forward(x, u, of, conv.Epilogue(empty(cout), y, relu=True))
        conv.input_grad(y, u, of, size)
        conv.weight_grad(x, y, of)
    return found


def shipped(capability: int) -> Iterator[tuple[str, Launch]]:
    """Each kernel in each form once, with what it is for."""
    seen = set()
    tiles = [(CUBE, layer) for layer in LAYERS] + [(FLAT, "layer1"), (LARGE, "layer1")]
    for tile, layer in tiles:
        for precision, dtypes in DTYPES.items():
            if tile == LARGE and precision == "half":  # no use: errors of half the output
                continue
            for dtype in dtypes if layer == "layer1" else dtypes[:1]:
                with patch.object(choose, "capability", lambda device: capability):
                    found = launches(layer, tile, precision, dtype)
                for launch in found:
                    form = launch.form
                    if form not in seen:
                        seen.add(form)
                        size = tile.partition(",")[0][2:]
                        yield f"{launch.name}-{layer}-{size}-{precision}-{len(seen)}-{capability}", launch


def takes_tensor_cores(launch: Launch) -> bool:
    """Whether its products are of numbers they take."""
    if not launch.name.startswith("products"):
        return False
    numbers = launch.arguments["a" if launch.name == "products" else "v"]
    return numbers.dtype != torch.float32 or launch.arguments["PRECISION"] == "tf32"


def wide_accesses(launch: Launch) -> set[str]:
    """The 16-byte accesses there should be: to memory, and from there to shared memory."""
    of = launch.arguments
    if launch.name in ("gather", "scatter"):
        itemsize = of["v" if launch.name == "gather" else "m"].dtype.itemsize
        bytes_each = of["TILES"] * of["CHANNELS"] * itemsize // (32 * launch.options["num_warps"])
        return {"LDG.128", "STG.128"} if of["channels"] % 16 == 0 and bytes_each >= 16 else set()
    columns = of["columns" if launch.name == "products" else "channels"]
    if columns == 1:  # next to nothing to load
        return set()
    stored = {"STG.128"} if columns % 16 == 0 else set()
    if launch.name == "products" and of["a_step"] != 1:
        runs = of["rows"], of["a_step"]  # of numbers one behind the other, and how far the next one is
    else:
        runs = of["steps"], of.get("a_row", of["steps"])
    return stored | {"LDGSTS.128"} if all(n % 16 == 0 for n in runs) else stored


SHIPPED = {name: (capability, launch) for capability in SHARED for name, launch in shipped(capability)}


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_kernel_compiles_to_what_it_should(name: str) -> None:
    capability, launch = SHIPPED[name]
    code = launch.compiled(capability)
    assert code.spilled == 0
    assert code.shared <= SHARED[capability]
    tensor_core = "HGMMA" if capability == 90 and launch.arguments.get("ROWS", 64) >= 64 else "HMMA"
    assert (code.instructions[tensor_core] > 0) == takes_tensor_cores(launch)
    lacking = {wide for wide in wide_accesses(launch) if code.instructions[wide] == 0}
    assert lacking == set()


def test_every_kernel_is_shipped() -> None:
    launches = [launch for _, launch in SHIPPED.values()]
    assert {launch.name for launch in launches} == set(MODULES)
    assert {launch.arguments["PRECISION"] for launch in launches if "PRECISION" in launch.arguments} == {
        "ieee", "tf32",
    }  # fmt: skip
