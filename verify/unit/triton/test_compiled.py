"""GPU kernels compiled for Ampere and Hopper without a GPU: nothing spills, accesses are wide, tensor cores used."""

from collections.abc import Iterator
from dataclasses import dataclass
from unittest.mock import patch

import pytest
import torch

from lrw_kernels.winograd import Tile

pytest.importorskip("triton", reason="the GPU kernels need triton (pip install 'lrw[gpu]')")

import triton

from lrw_kernels.triton import choose, conv
from lrw_kernels.triton.precision import Precision
from verify.unit.triton.compiled_kernels import MODULES, SHARED, Launch, recorded

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(triton.knobs.runtime.interpret, reason="TRITON_INTERPRET=1: nothing is compiled"),
]

LAYERS = {
    "first": (3, 64, (16, 112, 112)),
    "dec0": (32, 32, (64, 64, 64)),
    "layer1": (64, 64, (16, 56, 56)),
    "conv2a": (64, 128, (16, 56, 56)),
    "layer2": (128, 128, (8, 28, 28)),
    "conv3b": (256, 256, (8, 28, 28)),
    "mixed": (48, 96, (8, 28, 28)),
    "odd": (3, 5, (5, 7, 9)),
    "uneven": (65, 129, (8, 28, 28)),
    "single": (1, 1, (1, 1, 1)),  # of one sample: what is 1 is a constant to Triton
}
CUBE, LARGE = "F(2x2x2,3x3x3)", "F(4x4x4,3x3x3)"
# Beside F(2,3) for all layers: tiles of one plane, of unlike axes, of 1, 5 and 7 taps; up to those with run-time loops.
OTHERS = ("F(1x2x2,1x3x3)", "F(3x3x3,3x3x3)", "F(2x4x3,3x3x3)@1,2,0", "F(2x2x2,5x5x5)", "F(6x6x6,3x3x3)",
          "F(1x8x8,1x5x5)", "F(4x4x4,7x7x7)", "F(2x1x4,7x1x3)")  # fmt: skip
DTYPES = {"half": (torch.bfloat16, torch.float16), "tf32": (torch.float32,), "ieee": (torch.float32,)}


@dataclass(frozen=True)
class Case:
    """A layer by its name, a tile, how products are formed; without padding; float32 products by our own kernels."""

    layer: str
    tile: str
    precision: Precision
    valid: bool = False
    own: bool = False

    @property
    def name(self) -> str:
        size = self.tile.partition(",")[0][2:] + "-valid" * self.valid + "-own" * self.own
        return f"{self.layer}-{size}-{self.precision}"


def cases() -> Iterator[Case]:
    """What is compiled: half precision only for tiles that it bears, those without multiplications."""
    for precision in DTYPES:
        yield from (Case(layer, CUBE, precision) for layer in LAYERS)
        yield Case("layer1", CUBE, precision, valid=True)
        yield Case("layer1", OTHERS[0], precision)
    yield from (Case("layer1", LARGE, precision) for precision in ("tf32", "ieee"))
    yield from (Case("layer1", tile, "ieee") for tile in OTHERS[1:])
    yield from (Case(layer, tile, "tf32") for layer, tile in (("odd", LARGE), ("mixed", OTHERS[1])))
    yield from (Case(layer, CUBE, "ieee", own=True) for layer in ("layer1", "conv3b", "uneven"))


def launches(case: Case, dtype: torch.dtype) -> list[Launch]:
    """All that a training step of the layer starts, a quarter of the columns kept."""
    (cin, cout, size), batch = LAYERS[case.layer], 1 if case.layer == "single" else 16
    tile = Tile.parse(case.tile)
    kept = tuple(range(0, tile.positions, 4))
    d, h, w = (0 if case.valid else r // 2 for r in tile.kernel_size)
    of = conv.Layer(str(tile), (d, h, w), kept, case.precision)

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    x, u = empty(batch, *size, cin), empty(len(kept), cin, cout)
    y = empty(batch, *tile.output_size(size, (d, h, w)), cout)
    with recorded() as found:
        conv.forward(x, u, of, conv.Epilogue(empty(cout), y, relu=True))
        conv.input_grad(y, u, of, size)
        conv.weight_grad(x, y, of)
    return found


def shipped(capability: int) -> Iterator[tuple[str, Launch]]:
    """Each kernel in each form once."""
    seen = set()
    for case in cases():
        dtypes = DTYPES[case.precision]
        for dtype in dtypes if case.layer == "layer1" else dtypes[:1]:
            with (
                patch.object(choose, "capability", lambda device: capability),
                patch.object(choose, "matmuls_are_plain", lambda own=case.own: not own),
            ):
                found = launches(case, dtype)
            for launch in found:
                form = launch.form
                if form not in seen:
                    seen.add(form)
                    yield f"{launch.name}-{case.name}-{len(seen)}-{capability}", launch


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
    if launch.name == "operand":
        return {"LDG.128", "STG.128"} if of["steps"] % 16 == of["columns"] % 16 == 0 else set()
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
