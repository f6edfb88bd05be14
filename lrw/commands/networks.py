"""The network that a command line names: where its architecture and its weights come from, and what it is fed."""

import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lrw import checks, nets
from lrw.checkpoint import fill, is_saved, load, read, read_state_dict
from lrw.job import trained
from lrw.job.folder import COMPRESSED, REPORT
from lrw.layers import named_layers
from lrw.nets.exported import SUFFIX
from lrw.nets.own import ACCEPTED

Size = tuple[int, int, int]
NETS = f"{', '.join(nets.NAMES)}, {ACCEPTED}"


@dataclass(frozen=True)
class Source:
    """What a command line says of a network; None where it says nothing.

    net: a name of `lrw.nets`, or of a network of one's own, which gives the plain network; in_channels, size (D, H, W):
    of the input; classes, width: of a network of `lrw.nets`.
    """

    net: str | None = None
    in_channels: int | None = None
    classes: int | None = None
    width: int | None = None
    size: Size | None = None

    @property
    def name(self) -> str:
        """The name of the network, in one word."""
        return str(self.net).rpartition(":")[2] if not str(self.net).endswith(SUFFIX) else Path(str(self.net)).stem

    def build(self, weights: str | os.PathLike[str]) -> nn.Module:
        """The network with `weights`: a file of `lrw.save`, at any stage, or a plain state dict.

        Raises ValueError naming the option, or the file where it does not fit; what loading raises.
        """
        plain, path = self._plain(), Path(weights)
        if is_saved(path):
            return load(path, plain)
        fill(plain, read_state_dict(path), f"weights: {path} does not fit {self.net}", path)
        return plain

    def example(self, batch: int) -> Tensor:
        """Random input [batch, in_channels, D, H, W], always the same."""
        checks.check_count(batch, "--batch")
        shape = batch, self._given("in_channels"), *self._given("size")
        return torch.randn(shape, generator=torch.Generator().manual_seed(0))

    def _plain(self) -> nn.Module:
        net = self._given("net")
        if nets.is_own(net):
            for option in ("classes", "width"):
                if getattr(self, option) is not None:
                    raise ValueError(f"--{option}: {net} is called without arguments; accepted is nothing")
            return own(net)
        if net not in nets.NAMES:
            raise ValueError(f"--net: {net!r}; accepted are {NETS}")
        sizes = {"in_channels": self._given("in_channels"), "classes": self._given("classes")}
        width = None if self.width is None else self._given("width")
        return nets.build(net, input_size=self._given("size"), width=width, **sizes)

    def _given(self, field: str) -> Any:
        value, option = getattr(self, field), f"--{field.replace('_', '-')}"
        if value is None:
            raise ValueError(f"{option}: is needed, unless WEIGHTS is the folder of a finished lrw compress")
        if isinstance(value, int):
            checks.check_count(value, option)
        return value


def from_run(folder: str | os.PathLike[str], said: Source) -> tuple[Source, Path]:
    """(the network of a finished `lrw compress`, its compressed weights); what is `said` holds.

    Raises ValueError where `folder` is none, or its files are damaged or not of one run.
    """
    path = Path(folder) / REPORT
    if not path.is_file():
        raise ValueError(f"weights: {folder} holds no {REPORT}; accepted is the folder of a finished lrw compress")
    try:
        run = trained.read(path)
    except ValueError as error:
        raise ValueError(f"weights: {error}") from error
    depth, height, width = run.size
    size = depth, height, width
    if nets.is_own(run.net):
        if said.net is None:
            raise ValueError(f"--net: {folder} is of {run.net}; accepted is that, since a report is not what runs code")
        found = Source(run.net, run.channels, size=size)
    else:
        found = Source(run.net, run.channels, run.classes, run.width, size)
        _check_described(found, path, Path(folder) / COMPRESSED)
    given = {f.name: value for f in fields(said) if (value := getattr(said, f.name)) is not None}
    return replace(found, **given), Path(folder) / COMPRESSED


def _check_described(source: Source, report: Path, weights: Path) -> None:
    """Raise ValueError where `weights` is no network of the sizes that the report says, before room is taken for it."""
    header, tensors = read(weights)
    try:
        with torch.device("meta"):
            plain = source._plain()
    except (RuntimeError, OverflowError) as error:  # torch's words for sizes that no tensor can have
        raise ValueError(f"weights: {report} describes a network that cannot be made") from error
    of_layers = tuple(f"{name}." for name in header.layers)
    sizes = {name: tensor.shape for name, tensor in plain.state_dict().items() if not name.startswith(of_layers)}
    found = {name: tensor.shape for name, tensor in tensors.items() if not name.startswith(of_layers)}
    channels = {name: (conv.in_channels, conv.out_channels) for name, conv in named_layers(plain, nn.Conv3d).items()}
    stored = {name: (form.in_channels, form.out_channels) for name, form in header.layers.items()}
    if sizes != found or any(channels.get(name) != size for name, size in stored.items()):
        raise ValueError(f"weights: {report} does not describe the network in {weights}; they are not of one run")


def own(net: str) -> nn.Module:
    """The network of MODULE:FUNCTION, or of FILE.pt2. Raises ValueError naming the option, and OSError."""
    try:
        return nets.own(net)
    except ValueError as error:
        raise ValueError(f"--{error}") from error
