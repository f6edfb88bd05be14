"""Time whole networks, accelerated, beside torch and OpenVINO, correctness first: `python -m bench.networks`.

For each network a gate compares the accelerated one with the network in float64; only then do all candidates take turns
in one process: torch eager contiguous and channels last, OpenVINO in float32 where it is installed, the accelerated
network, and the same one trusted (`lrw.trust`). Networks come from this package, from torchvision and from MONAI; those
whose package is missing are left out, and said. One row per network can go to a CSV with commit, date and machine.
"""

import argparse
import csv
import importlib
import sys
import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import lrw
from bench.certificate import machine, today
from lrw.nets import C3D
from lrw.timing import interleaved

BOUND = 1e-5  # of the largest error, over the largest output


@dataclass(frozen=True)
class Case:
    """A network others use: how it is made, of which package, and the size of its input [N, C, D, H, W]."""

    name: str
    package: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]


def _r3d_18() -> nn.Module:
    return _torchvision_video().r3d_18()  # type: ignore[no-any-return]


def _segresnet() -> nn.Module:
    options = {"init_filters": 16, "in_channels": 1, "out_channels": 2}
    return _monai().SegResNet(3, **options, blocks_down=(1, 2, 2, 4), blocks_up=(1, 1, 1))  # type: ignore[no-any-return]


def _dynunet() -> nn.Module:
    return _monai().DynUNet(3, 1, 2, [3] * 5, [1, 2, 2, 2, 2], [2] * 4)  # type: ignore[no-any-return]


CASES = (
    Case("r3d_18", "torchvision", _r3d_18, (1, 3, 16, 112, 112)),
    Case("C3D", "lrw", lambda: C3D(3, 101, width=64), (1, 3, 16, 112, 112)),
    Case("SegResNet", "monai", _segresnet, (1, 1, 64, 64, 64)),
    Case("DynUNet", "monai", _dynunet, (1, 1, 64, 64, 64)),
)


def main() -> int:
    """Run the chosen networks and print a line each; exit code 1 when a gate is red."""
    arguments = _arguments()
    chosen = [case for case in CASES if arguments.networks in case.name]
    if not chosen:
        names = ", ".join(case.name for case in CASES)
        print(f"bench: no network holds {arguments.networks!r}; there are {names}", file=sys.stderr)
        return 2
    rows: list[dict[str, Any]] = []
    print(machine())
    for case in chosen:
        if find_spec(case.package) is None:
            print(f"{case.name}: left out, {case.package} is not installed", file=sys.stderr)
            continue
        try:
            rows.append(measure(case, arguments.seconds))
        except AssertionError as red:
            print(f"gate: {red}", file=sys.stderr)
            return 1
        print(line(rows[-1]), flush=True)
    if arguments.csv and rows:
        _write(Path(arguments.csv), rows)
    return 0


def measure(case: Case, seconds: float) -> dict[str, Any]:
    """The row of a network. Raises AssertionError, with no timing done, where the gate is red."""
    torch.manual_seed(0)
    net, x = case.make().eval(), torch.randn(case.shape)
    fast, trusted = lrw.accelerate(net, x), lrw.accelerate(net, x)
    lrw.trust(trusted)
    last, x_last = deepcopy(net).to(memory_format=torch.channels_last_3d), x.to(memory_format=torch.channels_last_3d)
    candidates: dict[str, Callable[[], object]] = {
        "contiguous": lambda: net(x),
        "channels_last": lambda: last(x_last),
        "lrw": lambda: fast(x),
        "trusted": lambda: trusted(x),
    }
    with torch.inference_mode():
        error = _gate(case, fast(x), net, x)
        if find_spec("openvino") is not None:
            candidates["openvino"] = openvino(net, x)
        times = {name: 1e3 * t for name, t in interleaved(candidates, seconds=seconds, rounds=(5, 50)).items()}
    form = min(("contiguous", "channels_last"), key=times.__getitem__)
    peer = min(times[name] for name in (form, "openvino") if name in times)
    return {
        "network": case.name,
        "package": case.package,
        "input": "x".join(map(str, case.shape)),
        "torch_form": form,
        "torch_ms": round(times[form], 2),
        "openvino_ms": round(times["openvino"], 2) if "openvino" in times else "",
        "lrw_ms": round(times["lrw"], 2),
        "trusted_ms": round(times["trusted"], 2),
        "speedup": round(peer / times["lrw"], 3),
        "trusted_speedup": round(peer / times["trusted"], 3),
        "error": float(f"{error:.2e}"),
    }


def openvino(net: nn.Module, x: Tensor) -> Callable[[], object]:
    """A call of `net` on `x` in OpenVINO, float32, with as many threads as torch has."""
    runtime: Any = importlib.import_module("openvino")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = runtime.convert_model(net, example_input=x)
    model.reshape({model.inputs[0]: list(x.shape)})
    options = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY"}
    compiled = runtime.Core().compile_model(model, "CPU", {**options, "INFERENCE_PRECISION_HINT": "f32"})
    request, numbers = compiled.create_infer_request(), x.numpy()
    return lambda: request.infer([numbers])


def line(row: dict[str, Any]) -> str:
    """A row for people."""
    peers = f"torch {row['torch_ms']:7.1f} ms ({row['torch_form']})"
    if row["openvino_ms"] != "":
        peers += f"  OpenVINO {row['openvino_ms']:7.1f} ms"
    ours = f"lrw {row['lrw_ms']:7.1f} ms {row['speedup']:5.2f}x  trusted {row['trusted_ms']:7.1f} ms"
    return (
        f"{row['network']:10s} {row['input']:16s} {peers}  {ours} {row['trusted_speedup']:5.2f}x  error {row['error']}"
    )


def _gate(case: Case, y: Tensor, net: nn.Module, x: Tensor) -> float:
    """Largest error over largest output against the network in float64; asserts that it is within BOUND."""
    exact = deepcopy(net).double()(x.double())
    error = float((y.double() - exact).abs().max() / exact.abs().max())
    assert error <= BOUND, f"{case.name}: error {error:.2e} above {BOUND:.0e}; nothing was timed"
    return error


def _torchvision_video() -> Any:
    """torchvision's video networks; its builds for CUDA need names of two operators beside torch for CPUs."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    if not hasattr(torch.ops.torchvision, "nms"):
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("torchvision.models.video")


def _monai() -> Any:
    return importlib.import_module("monai.networks.nets")


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    certificate = {"machine": machine(), "date": today()}
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *certificate])
        writer.writeheader()
        writer.writerows({**row, **certificate} for row in rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.networks", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--networks", default="", metavar="TEXT", help="only networks whose name holds TEXT")
    parser.add_argument("--seconds", type=float, default=15.0, help="time per network")
    parser.add_argument("--csv", metavar="FILE", help="write the rows there too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
