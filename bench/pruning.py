"""What columns cost in accuracy, without training and after a short one: `python -m bench.pruning`.

For each task a dense network is trained to convergence (kept in --dense). Then it loses columns: cut by importance,
with `lrw.prune` (elimination and least squares on a few unlabelled training samples) at the same share everywhere and
as planned across layers and tiles, and some of these are trained on through low-rank factors, to say what the dense
network says of the training samples, without labels. Losses are against the dense network on the same test samples,
with a paired bootstrap's 95 % interval. Before anything is learnt a gate holds each converted network against the dense
one. Exit codes: 0 done, 1 a gate is red, 2 wrong arguments, 130 stopped by Ctrl-C.
"""

import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import prod
from pathlib import Path
from time import perf_counter

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import lrw
from bench import certificate, page, rows
from bench.command import Parser, checked, file, guarded, names
from bench.evidence.settings import SMALL
from bench.evidence.tasks import missing, sample_dice, task
from bench.evidence.training import train
from bench.gate import Red
from lrw.data import moving_digits
from lrw.distill import distillation_loss
from lrw.layers import evaluating, input_sizes, named_layers, winograd_layers
from lrw.nn import WinogradConv3d, WinogradLayer
from lrw_kernels.winograd import importance

TASKS = ("digits", "hippocampus")
DROPPED = (0.5, 0.75, 0.875)
PLANNED = (8, 16, 32)  # times fewer multiplies than direct convolution's
SAMPLES = {"digits": 256, "hippocampus": 24}  # unlabelled ones
DENSE = {"digits": (14, 32, 1e-2), "hippocampus": (40, 4, 1e-4)}  # epochs, batch size, weight decay
SHORT = {"digits": 6, "hippocampus": 14}  # epochs through the factors
TRAINED = ((2, 0.75), (2, 0.875), (4, 0.5), (4, 0.75))  # tile and share dropped of what is trained on
RATE, REST, RANK = 3e-3, 3e-4, 8  # learning rates of the factors and of what is no Winograd layer
CLIPS = 30000  # of which a fifth is for tests: what tells half a point
GATE = 1e-3  # of the largest output: F(4,3) in float32, layer after layer
RESAMPLED = 2000
METHODS = ("cut by importance", "fitted", "fitted, then trained")
NOTHING = "Nothing was pruned yet: `python -m bench.pruning` does that."


@dataclass(frozen=True)
class Row(rows.Row):
    """One network on one task: how it came about (`method`, `tile`, share of columns `dropped`), multiplies of direct
    convolution over those left in its products, score on `tests` samples, and what it lost against the dense network
    with the ends of the interval; the error of its outputs on the samples it was fitted on, and seconds it took."""

    task: str
    metric: str
    tests: int
    method: str
    tile: str
    dropped: float | None
    fewer: float
    score: float
    lost: float
    low: float
    high: float
    error: float | None
    seconds: float

    @property
    def line(self) -> str:
        """The row for people."""
        lost = f"lost {self.lost:+.4f} ({self.low:+.4f} to {self.high:+.4f})"
        came = f"{self.task:12s} {self.method:22s} {self.tile:6s} {self.fewer:5.1f} times fewer multiplies"
        return f"{came}  {self.metric} {self.score:.4f}  {lost}  {self.seconds:.0f} s"


class Bench:
    """A task with its trained dense network, and what each test sample scores through it."""

    def __init__(self, name: str, data: Path, dense: Path | None) -> None:
        self.task = task(name, SMALL, data, 0)
        self.tests = moving_digits(seed=7, count=CLIPS) if name == "digits" else self.task.volumes
        self.net = self._dense(dense)
        self.scores = self.each(self.net)
        batches = self.task.volumes.batches("train", DENSE[name][1], seed=99)
        images = torch.cat([x for _, (x, _) in zip(range(SAMPLES[name] // DENSE[name][1]), batches, strict=False)])
        self.samples = list(images.split(32))

    def each(self, net: nn.Module) -> Tensor:
        """The score of every test sample [samples], float64."""
        parts = []
        with torch.no_grad(), evaluating(net):
            for images, labels in self.tests.batches("test", 128 if self.task.name == "digits" else 8):
                parts.append(_right(net(images), labels) if labels.dim() == 1 else sample_dice(net(images), labels))
        return torch.cat(parts).double()

    def row(self, method: str, net: nn.Module, start: float, tile: str = "", dropped: float | None = None,
            error: float | None = None) -> Row:  # fmt: skip
        """The row of `net`, which was begun at `start`."""
        seconds, scores = perf_counter() - start, self.each(net)
        lost = self.scores - scores
        low, high = _interval(lost)
        return Row(
            task=self.task.name, metric=self.task.metric, tests=len(scores), method=method, tile=tile, dropped=dropped,
            fewer=_fewer(net, self.samples[0][:1]), score=float(scores.mean()), lost=float(lost.mean()), low=low,
            high=high, error=error, seconds=seconds,
        )  # fmt: skip

    def _dense(self, folder: Path | None) -> nn.Module:
        """The trained network, out of `folder` where it has been kept there."""
        name, volumes = self.task.name, self.task.volumes
        torch.manual_seed(0)
        net = self.task.build(volumes, SMALL.width)
        kept = None if folder is None else folder / f"{name}.safetensors"
        if kept is not None and kept.is_file():
            net.load_state_dict(load_file(kept))
            return net.eval()
        epochs, batch, decay = DENSE[name]
        optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=decay)
        train(net, self.task, optimizer, epochs=epochs, batch=batch, seed=0,
              loss_of=lambda _, logits, labels: self.task.loss(logits, labels))  # fmt: skip
        if kept is not None:
            save_file({key: t.contiguous() for key, t in net.state_dict().items()}, kept)
        return net.eval()


def main(argv: Sequence[str] | None = None) -> int:
    """Prune the networks of the chosen tasks and print a line for each."""
    arguments = _arguments(argv)
    stamp = certificate.stamp()
    print(certificate.line(stamp))
    with rows.Writer(arguments.csv, stamp) as writer:
        for name in arguments.tasks:
            reason = missing(name, arguments.data)
            if reason is not None:
                print(f"{name}: left out, {reason}", file=sys.stderr)
                continue
            try:
                for row in measured(Bench(name, arguments.data, arguments.dense)):
                    writer.write(row)
                    print(row.line, flush=True)
            except Red as red:
                print(red, file=sys.stderr)
                return 1
    return 0


def measured(bench: Bench) -> Iterator[Row]:
    """The rows of a task, one after the other. Raises Red where a converted network is not the dense one."""
    net, start = bench.net, perf_counter()
    yield bench.row("dense", net, start)
    for tile in (2, 4):
        whole = _spared(net, tile)
        _gate(bench, whole, tile)
        for dropped in DROPPED:
            start = perf_counter()
            yield bench.row("cut by importance", _cut(whole, dropped), start, f"F({tile},3)", dropped)
            start = perf_counter()
            pruned = lrw.prune(net, bench.samples, sparsity=dropped, tile=tile, progress=False)
            yield bench.row("fitted", pruned, start, f"F({tile},3)", dropped, pruned.report.error)
            if (tile, dropped) in TRAINED:
                start = perf_counter()
                yield bench.row("fitted, then trained", _trained(bench, pruned), start, f"F({tile},3)", dropped)
    for fewer in PLANNED:
        start = perf_counter()
        planned = lrw.prune(net, bench.samples, multiplies=1 / fewer, progress=False)
        yield bench.row(f"planned to 1/{fewer}, fitted", planned, start, "mixed", None, planned.report.error)


def _spared(net: nn.Module, tile: int) -> nn.Module:
    """Converted as `lrw.prune` does it: all but layers of fewer than 4 input channels."""
    return lrw.to_winograd(net, tile, filter=lambda _, conv: conv.in_channels >= 4)


def _gate(bench: Bench, whole: nn.Module, tile: int) -> None:
    with torch.no_grad():
        ours, theirs = (n(bench.samples[0]) for n in (whole, bench.net))
    apart = float((ours - theirs).abs().max() / theirs.abs().max())
    if not apart <= GATE:
        raise Red(f"gate: {bench.task.name} converted to F({tile},3) is {apart:.1e} off; accepted is {GATE:g}")


def _cut(whole: nn.Module, dropped: float) -> nn.Module:
    """The converted network without the columns of least |U| F (Yu, Park, Naumov, arXiv 1901.02132), nothing else
    changed."""
    net = deepcopy(whole)
    for layer in named_layers(net, WinogradConv3d).values():
        tile = layer.geometry.tile
        size = layer.weights().detach().flatten(1).norm(dim=1).double() * torch.from_numpy(importance(tile))
        kept = size.argsort(descending=True, stable=True)[: tile.positions - round(dropped * tile.positions)]
        layer.keep(sorted(kept.tolist()))
    return net


def _trained(bench: Bench, pruned: nn.Module) -> nn.Module:
    """Through low-rank factors, to say what the dense network says: labels are not looked at here either."""
    net = lrw.add_low_rank(pruned, RANK)
    teacher = deepcopy(bench.net).eval()
    own = {id(p) for layer in winograd_layers(net).values() for n, p in layer.named_parameters() if n in ("Gr", "Gc")}
    groups = [
        {"params": [p for p in net.parameters() if p.requires_grad and (id(p) in own) == ours], "lr": rate}
        for ours, rate in ((True, RATE), (False, REST))
    ]

    def loss_of(images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            said = teacher(images)
        return distillation_loss(logits, said, labels, weight=1.0, temperature=2.0)

    name = bench.task.name
    train(net, bench.task, torch.optim.AdamW(groups, weight_decay=1e-4), epochs=SHORT[name], batch=DENSE[name][1],
          seed=1, loss_of=loss_of)  # fmt: skip
    return net.eval()


def _right(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(1) == labels).double()


def _interval(lost: Tensor) -> tuple[float, float]:
    """The ends of a bootstrap's 95 % interval of the mean."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([
        lost[torch.randint(len(lost), (len(lost),), generator=generator)].mean() for _ in range(RESAMPLED)
    ])  # fmt: skip
    low, high = torch.quantile(drawn, torch.tensor([0.025, 0.975], dtype=lost.dtype)).tolist()
    return low, high


def _fewer(net: nn.Module, example: Tensor) -> float:
    """Multiplies of direct convolution over those of the products, of all layers that are Winograd layers in `net`."""
    layers = named_layers(net, WinogradLayer)
    if not layers:
        return 1.0
    direct = left = 0.0
    for name, size in input_sizes(net, example).items():
        layer = layers[name]
        tile, out = layer.geometry.tile, layer.geometry.output_size(size)
        pairs = layer.in_channels * layer.out_channels
        direct += prod(out) * prod(tile.kernel_size) * pairs
        left += layer.geometry.columns * prod(tile.grid(out)) * pairs
    return direct / left


def table(found: Sequence[Row]) -> list[str]:
    """What was lost, task beside task; or that nothing was measured."""
    if not found:
        return [NOTHING]
    tasks = list(dict.fromkeys(row.task for row in found))
    by_place = {(row.task, row.method, row.tile, row.dropped): row for row in found}
    keys = list(dict.fromkeys(place[1:] for place in by_place))
    head = ["network", "tile", "columns dropped"]
    for name in tasks:
        one = next(row for row in found if row.task == name)
        head += [f"{name}: multiplies", f"{one.metric} ({one.tests} tests)", "lost (95 %)"]
    lines = []
    for method, tile, dropped in keys:
        line = [method, tile, "" if dropped is None else f"{100 * dropped:g} %"]
        for name in tasks:
            line += _cells(by_place.get((name, method, tile, dropped)))
        lines.append(line)
    return page.tight(page.table(head, lines))


def short(found: Sequence[Row]) -> list[str]:
    """What is asked first: scores of the dense network, after cuts, fitted, trained; or that nothing was measured."""
    if not found:
        return [NOTHING]
    tasks = list(dict.fromkeys(row.task for row in found))
    by_place = {(row.task, row.method, row.tile, row.dropped): row for row in found}
    dense = {name: next(row for row in found if row.task == name and row.method == "dense") for name in tasks}
    head = ["", *(text for name in tasks for text in (f"{name}: cut alone", "`lrw.prune`", "then trained"))]
    lines = [["dense", *(text for name in tasks for text in (f"{dense[name].score:.3f} {dense[name].metric}", "", ""))]]
    for tile, dropped in ((t, d) for t in ("F(2,3)", "F(4,3)") for d in DROPPED):
        of = [by_place.get((name, method, tile, dropped)) for name in tasks for method in METHODS]
        texts = ["" if row is None else f"{row.score:.3f}" for row in of]
        lines.append([f"{tile}, {100 * dropped:g} % of the columns gone", *texts])
    return page.tight(page.table(head, lines))


def _cells(row: Row | None) -> tuple[str, str, str]:
    if row is None:
        return "", "", ""
    if row.method == "dense":
        return "1", f"{row.score:.4f}", ""
    return f"1/{row.fewer:.1f}", f"{row.score:.4f}", f"{row.lost:+.4f} ({row.low:+.4f} to {row.high:+.4f})"


def _arguments(argv: Sequence[str] | None) -> Namespace:
    parser = Parser("bench.pruning", __doc__)
    some = f"some, by commas: {', '.join(TASKS)}"
    parser.add_argument("--tasks", type=names(TASKS), default=[*TASKS], metavar="NAMES", help=some)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), metavar="DIR", help="of the volumes")
    parser.add_argument("--dense", type=_folder, metavar="DIR", help="keep trained dense networks there, and take them")
    parser.add_argument("--csv", type=file, metavar="FILE", help="write the rows there too")
    return parser.parse_args(argv)


@checked
def _folder(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise ValueError(f"{text!r}; accepted is a folder that is there")
    return path


if __name__ == "__main__":
    guarded("bench.pruning", "bench.pruning")
