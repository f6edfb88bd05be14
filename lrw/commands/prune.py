"""`lrw prune`: a trained network with fewer columns, without training and without labels."""

import argparse
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lrw import data
from lrw.checkpoint import save
from lrw.commands import options
from lrw.commands.networks import NETS, Source
from lrw.compress import compress
from lrw.data import Volumes, npz_file
from lrw.job.metrics import Metrics, evaluate
from lrw.job.network import check_labels
from lrw.nets import CLASSIFIERS, is_own, own
from lrw.nets.exported import SUFFIX
from lrw.prune import prune
from lrw.pruning.budget import Budget
from lrw.state_dict import check_file
from lrw_kernels.untrusted import in_a_line

_OPTIONS = ("sparsity", "multiplies", "speedup", "tile", "spare", "voxels", "seed")


def add(commands: Any) -> None:
    """Declare the command in argparse's `commands`."""
    p = commands.add_parser(
        "prune",
        allow_abbrev=False,
        help="drop columns of a trained network without training it",
        description="Drop the Winograd columns of a trained network that its outputs miss least and fit the others to "
        "what it computes, on samples without labels, as lrw.prune does; save what is left and report.",
    )
    p.add_argument("weights", metavar="WEIGHTS", help="file of lrw.save, plain state dict (.safetensors, .pt), or "
                   "FILE.pt2 of torch.export.save, which may run code when it is read")  # fmt: skip
    net = p.add_argument_group("the network (but of a .pt2 file, which says it)")
    net.add_argument("--net", metavar="NET", help=f"{NETS}, which gives the plain network")
    net.add_argument("--classes", type=int, metavar="N", help="channels of the output (default: those of the data)")
    net.add_argument("--width", type=int, metavar="N", help="channels of the first layer (default: the network's own)")
    samples = p.add_argument_group("samples")
    samples.add_argument("--data", required=True, metavar="WHAT", help="a .npy array [N, C, D, H, W] of numbers as the "
                         "network takes them, or what lrw compress reads: 'digits', .npz files, folders of arrays, "
                         "volumes or clips, whose training split is taken, grey levels normalised")  # fmt: skip
    samples.add_argument("--size", type=options.size, metavar="DxHxW", help="of the samples, where it is not fixed "
                         "(default: the data's own)")  # fmt: skip
    samples.add_argument("--samples", type=int, default=256, metavar="N", help="at most this many (default: 256)")
    samples.add_argument("--batch", type=int, default=8, metavar="N", help="at a time (default: 8)")
    how = p.add_argument_group("what goes")
    budget = how.add_mutually_exclusive_group(required=True)
    budget.add_argument("--sparsity", type=float, metavar="SHARE", help="of each layer's columns, 0 up to 1")
    budget.add_argument("--multiplies", type=float, metavar="SHARE", help="of direct convolution's that may be left, "
                        "spread over layers and tiles where the outputs miss them least")  # fmt: skip
    budget.add_argument("--speedup", type=float, metavar="TIMES", help="how many times as fast as the accelerated "
                        "dense network the result is to be, on this machine: a plan of milliseconds")  # fmt: skip
    how.add_argument("--tile", type=_tile, default="auto", metavar="M", help="outputs per axis: one number, DxHxW, or "
                     "auto (default): 2 with --sparsity, each layer's own otherwise")  # fmt: skip
    how.add_argument("--spare", metavar="NAMES", help="layers to leave alone, by commas (default: those of fewer than "
                     "4 input channels)")  # fmt: skip
    how.add_argument("--no-scores", dest="scores", action="store_const", const=False, help="what the network gives are "
                     "no class scores: all errors count alike")  # fmt: skip
    how.add_argument("--seed", type=int, default=0, metavar="N", help="of what is looked at (default: 0)")
    p.add_argument("--out", default="pruned.safetensors", metavar="FILE", help="(default: pruned.safetensors)")
    p.add_argument("--trainable", action="store_true", help="keep what was dropped in the file, so that it can be "
                   "trained on with lrw.add_low_rank; otherwise it is compressed")  # fmt: skip
    p.add_argument("--json", action="store_true", help="print the report as JSON on stdout")
    p.add_argument("--quiet", action="store_true", help="no progress")
    p.set_defaults(run=_run, stopped="layers that are done are kept: the same command goes on from them")


def _tile(text: str) -> str | int | tuple[int, int, int]:
    return text if text == "auto" else options.tile(text)


def _run(arguments: argparse.Namespace) -> int:
    out = Path(arguments.out)
    if not out.parent.is_dir():
        raise FileNotFoundError(f"--out: no folder {out.parent}")
    check_file(arguments.weights)
    budget = {name: getattr(arguments, name) for name in ("sparsity", "multiplies", "speedup")}
    try:
        Budget(**budget)
    except ValueError as error:
        raise ValueError(f"--{error}") from error
    volumes, batches = _samples(arguments.data, arguments.samples, arguments.batch, arguments.seed, arguments.size,
                                arguments.net not in CLASSIFIERS)  # fmt: skip
    net = _network(arguments, batches[0], volumes)
    for batch in (batches[0], batches[-1]):
        _check_takes(net, batch)
    work = out.with_name(out.name + ".layers")
    spare = None if arguments.spare is None else [name for name in arguments.spare.split(",") if name]
    try:
        pruned = prune(net, batches, **budget, tile=arguments.tile, spare=spare, seed=arguments.seed,
                       scores=arguments.scores, checkpoint=work, progress=not arguments.quiet)  # fmt: skip
    except ValueError as error:
        name = str(error).partition(":")[0]  # lrw.prune names its arguments, some of which are options here
        if name == "checkpoint":
            raise ValueError(f"--out: {work} was left by a run of other work, or is damaged; remove it") from error
        raise ValueError(f"{'--' * (name in _OPTIONS)}{error}") from error
    report: Any = pruned.report
    left = pruned if arguments.trainable else compress(pruned)
    save(left, out)
    shutil.rmtree(work)
    scores = _scores(net, left, volumes)
    if arguments.json:
        tested = None if scores is None else {name: asdict(metrics) for name, metrics in scores.items()}
        said = {**report.to_dict(), "file": str(out), "bytes": out.stat().st_size, "test": tested}
        print(json.dumps(said, indent=1, allow_nan=False))
        return 0
    print(report)
    if scores is not None:
        print(f"test: {scores['before'].words} before, {scores['after'].words} after")
    print(f"{out}: {out.stat().st_size:,} bytes{'' if arguments.trainable else ', compressed'}")
    return 0


def _samples(
    what: str, most: int, batch: int, seed: int, size: tuple[int, int, int] | None, segmented: bool
) -> tuple[Volumes | None, list[Tensor]]:
    """(the data where it has labels too, batches of samples). Raises ValueError naming the option or the file."""
    for value, name in ((most, "--samples"), (batch, "--batch")):
        if value < 1:
            raise ValueError(f"{name}: {value}; accepted are whole numbers from 1")
    if Path(what).suffix == ".npy":
        array = npz_file.read_array(Path(what))
        if array.ndim < 2 or array.dtype.name == "uint8":
            held = f"{array.dtype} {list(array.shape)}"
            raise ValueError(f"--data: {what} holds {held}; accepted are numbers [N, C, D, H, W] as the network takes "
                             "them, not grey levels")  # fmt: skip
        return None, list(npz_file.as_numbers(array[:most]).split(batch))
    volumes = data.load(what, seed=seed, size=size, segmented=segmented)
    batches, count = [], 0
    for images, _ in volumes.batches("train", batch, seed=seed):
        batches.append(images[: most - count])
        count += len(batches[-1])
        if count >= most:
            break
    return volumes, batches


def _network(arguments: argparse.Namespace, batch: Tensor, volumes: Volumes | None) -> nn.Module:
    """The network with its weights. Raises ValueError naming the option, and what loading raises."""
    if arguments.weights.endswith(SUFFIX):
        for option in ("net", "classes", "width"):
            if getattr(arguments, option) is not None:
                raise ValueError(f"--{option}: {arguments.weights} says it; accepted is nothing")
        return own(arguments.weights)
    if arguments.net is None:
        raise ValueError(f"--net: is needed, unless WEIGHTS is a {SUFFIX} file")
    classes = arguments.classes
    if is_own(arguments.net):
        return Source(arguments.net, None, classes, arguments.width, None).build(arguments.weights).eval()
    if batch.dim() != 5:
        raise ValueError(f"--data: samples of shape {list(batch.shape[1:])}; {arguments.net} takes [C, D, H, W]")
    if classes is None and volumes is not None:
        classes = len(volumes.classes)
    _, channels, depth, height, width = batch.shape
    source = Source(arguments.net, channels, classes, arguments.width, (depth, height, width))
    return source.build(arguments.weights).eval()


def _scores(before: nn.Module, after: nn.Module, volumes: Volumes | None) -> dict[str, Metrics] | None:
    """On the test split, of networks that give a score for each class of the data, in batches of any size; None for
    others."""
    try:
        if volumes is not None:
            check_labels(before, "net", volumes)
    except ValueError:
        volumes = None
    if volumes is None:
        return None
    return {name: evaluate(net, volumes, "test") for name, net in (("before", before), ("after", after))}


def _check_takes(net: nn.Module, batch: Tensor) -> None:
    """Raise ValueError where `net` does not take a batch: a file may have been exported for batches of one size."""
    try:
        with torch.no_grad():
            net(batch)
    except Exception as error:  # of many classes: whatever a network of one's own raises
        raise ValueError(f"--batch: the network does not take {list(batch.shape)} ({in_a_line(error)})") from error
