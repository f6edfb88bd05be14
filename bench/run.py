"""Time Winograd layers against torch's own convolution, correctness first: `nox -s bench`.

For each case a gate compares our dense layer with a float64 direct convolution, and our pruned ones with the same
products in float64; only then are all candidates timed, taking turns in one process. torch is measured contiguous, in
channels_last_3d and pre-packed by oneDNN; the fastest counts. One row per case and share of kept columns can go to a
CSV with commit, date, machine and versions.
"""

import argparse
import csv
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import mkldnn

from bench import stages, training
from bench.cases import CASES
from bench.certificate import machine, today
from bench.layers import Layer, kept
from lrw import backends
from lrw.geometry import Geometry
from lrw.ops import domain_conv3d, transform_weight
from lrw.timing import interleaved
from lrw_kernels.winograd import Tile, cheapest_tile, domain_error, winograd_cost

SHARES = (1.0, 0.5, 0.25)
EPS = 2.0**-23


def main() -> int:
    """Run the chosen cases and print the table; exit code 1 when a gate is red."""
    arguments = _arguments()
    torch.manual_seed(0)
    chosen = [case for case in CASES if arguments.cases in case.name]
    if not chosen:
        print(
            f"bench: no case holds {arguments.cases!r}; there are {', '.join(c.name for c in CASES)}", file=sys.stderr
        )
        return 2
    rows: list[dict[str, Any]] = []
    print(machine())
    for case in chosen:
        tile = _tile(arguments.tile, case)
        try:
            if arguments.training:
                measured = [training.measure(case, tile, arguments.backend, arguments.seconds)]
            else:
                measured = measure(case, tile, arguments.backend, arguments.seconds)
        except AssertionError as red:
            print(f"gate: {red}", file=sys.stderr)
            return 1
        rows += measured
        print(*map(training.line if arguments.training else _line, measured), sep="\n", flush=True)
    for share in SHARES if not arguments.training else ():
        mean = geometric_mean([row["speedup"] for row in rows if row["share"] == share])
        print(f"geometric mean at {share:.0%} of the columns: {mean:.2f}x")
    if arguments.training:
        print(f"geometric mean of a training step: {geometric_mean([row['speedup'] for row in rows]):.2f}x")
    if arguments.csv:
        _write(Path(arguments.csv), rows)
    return 0


def measure(case: Layer, tile: Tile, backend: str, seconds: float) -> list[dict[str, Any]]:
    """A row for each share of kept columns. Raises AssertionError, with no timing done, where a gate is red."""
    x = torch.randn(1, case.cin, *case.size)
    weight = torch.randn(case.cout, case.cin, 3, 3, 3) / (27 * case.cin) ** 0.5
    u = transform_weight(weight, tile)
    last = x.to(memory_format=torch.channels_last_3d)
    name = backends.choose(x.device).name if backend == "auto" else backend
    candidates: dict[str, Callable[[], Any]] = {**_torch_forms(x, last, weight)}
    layers, errors = {}, {}
    for share in SHARES:
        layers[share] = Geometry(tile, (1, 1, 1), None if share == 1 else kept(tile, share), fixed=share < 1)
        rows = u if share == 1 else u[list(layers[share].positions)].contiguous()
        candidates[f"lrw {share}"] = _winograd(last, rows, layers[share], name)
        errors[share] = _gate(case, candidates[f"lrw {share}"](), x, weight, rows, layers[share])
        if name == "cpu":
            parts = stages.stages(case, layers[share], last, rows)
            candidates |= {f"{part} {share}": run for part, run in parts.items()}
    if name == "cpu":
        candidates["peak"] = stages.peak()
    with torch.inference_mode():
        times = interleaved(candidates, seconds=seconds, rounds=(7, 100))
    form = min(("contiguous", "channels_last", "prepacked"), key=times.__getitem__)
    return [
        {
            "case": case.name,
            "tile": tile.name,
            "backend": name,
            "share": share,
            "kept": layer.columns,
            "positions": tile.positions,
            "torch_form": form,
            "torch_ms": round(1e3 * times[form], 3),
            "lrw_ms": round(1e3 * times[f"lrw {share}"], 3),
            "speedup": round(times[form] / times[f"lrw {share}"], 3),
            "error": float(f"{errors[share]:.2e}"),
            "multiplies": winograd_cost(tile, case.cin, case.cout, case.size, kept=layer.kept).multiplies,
            **(_stages(case, layer, times, share) if name == "cpu" else {}),
        }
        for share, layer in layers.items()
    ]


def _stages(case: Layer, layer: Geometry, times: dict[str, float], share: float) -> dict[str, Any]:
    """Products: the whole pass less its transforms, as a rate and as a share of the peak of the same minutes."""
    products = times[f"whole {share}"] - times[f"transforms {share}"]
    rate, peak = stages.product_flops(case, layer) / products, stages.peak_flops() / times["peak"]
    done = stages.prepared(case, layer)
    return {
        "path": done.path,
        "kernels_ms": round(1e3 * times[f"whole {share}"], 3),
        "digest_ms": round(1e3 * times[f"digest {share}"], 3),
        "transforms_ms": round(1e3 * times[f"transforms {share}"], 3),
        "gemm_gflops": round(rate / 1e9, 1),
        "peak_gflops": round(peak / 1e9, 1),
        "of_peak": round(rate / peak, 3),
        "scratch_mib": round(done.program.buffer_bytes / 2**20, 1),
    }


def _torch_forms(x: Tensor, last: Tensor, weight: Tensor) -> dict[str, Callable[[], Tensor]]:
    conv = nn.Conv3d(weight.shape[1], weight.shape[0], 3, padding=1, bias=False)
    conv.weight = nn.Parameter(weight, requires_grad=False)
    packed, dense = mkldnn.to_mkldnn(conv.eval()), x.to_mkldnn()
    weight_last = weight.to(memory_format=torch.channels_last_3d)
    return {
        "contiguous": lambda: F.conv3d(x, weight, padding=1),
        "channels_last": lambda: F.conv3d(last, weight_last, padding=1),
        "prepacked": lambda: packed(dense),
    }


def _winograd(x: Tensor, u: Tensor, layer: Geometry, backend: str) -> Callable[[], Tensor]:
    arguments = layer.arguments
    return lambda: domain_conv3d(x, u, None, arguments, backend)


def _gate(case: Layer, y: Tensor, x: Tensor, weight: Tensor, u: Tensor, layer: Geometry) -> float:
    """Largest error over largest output against float64; asserts that it is within the computed bound."""
    if layer.kept is None:
        exact = F.conv3d(x.double(), weight.double(), padding=1)
    else:
        exact = domain_conv3d(x.double(), u.double(), None, layer.arguments, "torch")
    error = float((y.double() - exact).abs().max())
    bound = domain_error(layer.tile, layer.kept, u.norm(dim=1).amax(dim=1).numpy(), float(x.abs().max()), case.cin, EPS)
    assert error <= bound, f"{case.name}: error {error:.2e} above the bound {bound:.2e}; nothing was timed"
    return error / float(exact.abs().max())


def _tile(text: str, case: Layer) -> Tile:
    """What `tile="auto"` takes for the dense layer, or the given one."""
    if text == "auto":
        return cheapest_tile((3, 3, 3), case.cin, case.cout, case.size)
    outputs = [int(n) for n in text.split("x")]
    return Tile.of(outputs[0] if len(outputs) == 1 else outputs)


def _line(row: dict[str, Any]) -> str:
    columns, torch_ms = f"{row['kept']:4d}/{row['positions']}", f"torch {row['torch_ms']:8.2f} ms ({row['torch_form']})"
    ours = f"lrw {row['lrw_ms']:8.2f} ms  {row['speedup']:5.2f}x  error {row['error']:.1e}"
    products = f"  products {row['gemm_gflops']:5.0f} GFLOP/s ({row['of_peak']:.0%} of peak)" if "path" in row else ""
    return f"{row['case']:16s} {row['tile']:16s} {columns}  {torch_ms}  {ours}{products}"


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    certificate = {"machine": machine(), "date": today()}
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *certificate])
        writer.writeheader()
        writer.writerows({**row, **certificate} for row in rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.run", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cases", default="", metavar="TEXT", help="only cases whose name holds TEXT")
    parser.add_argument("--backend", default="auto", help="a backend by name, or auto")
    parser.add_argument("--tile", default="auto", help="outputs per axis, as 4 or 2x4x4, or auto")
    parser.add_argument("--seconds", type=float, default=4.0, help="time per case")
    parser.add_argument("--training", action="store_true", help="forward and both gradients instead of inference")
    parser.add_argument("--csv", metavar="FILE", help="write the rows there too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
