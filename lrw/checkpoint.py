"""Save and load networks with Winograd layers: safetensors, no pickle, the structure beside the tensors.

The file's metadata holds one JSON text under "lrw" (`lrw.header`): format version, a digest, and for each Winograd
layer its kind, channels, tile (with origin and points), padding, kept columns (by block), rank and whether it is
rectified. `load` rebuilds those layers inside a plain network.
"""

import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lrw import checks
from lrw.files import whole
from lrw.header import Header, check_tensors, digest, header_text, layer_of, read_header
from lrw.layers import copied, named_layers, replace_layers
from lrw.nn import GroupedConv3d, MovedReLU, WinogradLayer
from lrw.state_dict import UNREADABLE, check_file, check_types, plain_name, read_safetensors, read_state_dict
from lrw.typed import typed
from lrw_kernels.untrusted import in_a_line, shown

__all__ = ["UNREADABLE", "fill", "is_saved", "load", "read", "read_state_dict", "save"]


@typed
def save(net: nn.Module, path: str | os.PathLike[str]) -> Path:
    """Write `net`'s tensors and Winograd structure to `path`, whole or not at all; returns the path.

    The file has the permissions that the umask leaves. Raises ValueError for non-finite weights and for Winograd layers
    whose weights are computed from others (torch.nn.utils.prune, weight_norm), FileNotFoundError for a folder that is
    not there, OSError where it cannot be written; then what was at `path` stays.
    """
    net = _unwrapped(net)
    checks.check_finite(net)
    layers = {plain_name(name): layer for name, layer in named_layers(net, WinogradLayer).items()}
    checks.check_tensors(layers)
    moved = [plain_name(name) for name in named_layers(net, MovedReLU)]
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"path: no folder {target.parent}")
    plain = {"device": "cpu", "memory_format": torch.contiguous_format, "copy": True}
    tensors = {plain_name(name): tensor.detach().to(**plain) for name, tensor in net.state_dict().items()}
    metadata = {"lrw": header_text(layers, moved, tensors)}
    with whole(target) as partial:
        save_file(tensors, partial, metadata=metadata)
    return target


@typed
def load(path: str | os.PathLike[str], skeleton: nn.Module) -> nn.Module:
    """The network saved at `path`: a copy of `skeleton` (the plain network's architecture) with its Winograd layers.

    A skeleton that already has Winograd layers must agree with the file in tile, origin and padding. ReLUs that moved
    into layers (`lrw.rectify`) go from the copy. Raises ValueError naming file and tensor or layer for a file that is
    not lrw's, of another format version, damaged (its digest differs) or with non-finite weights, and for one that does
    not fit; FileNotFoundError where none is, OSError where it cannot be read.
    """
    checks.check_network(skeleton, "skeleton")
    header, tensors = read(path)
    net = copied(skeleton)
    modules = dict(net.named_modules())
    new: dict[str, nn.Module] = {}
    for name, form in header.layers.items():
        if name not in modules:
            raise ValueError(f"skeleton: has no layer {shown(name)}, which {path} describes")
        new[name] = layer_of(form, modules[name], name, path)
    for name in header.moved_relus:
        if not isinstance(modules.get(name), nn.ReLU | nn.Identity):
            raise ValueError(f"skeleton: {shown(name)} is no nn.ReLU, which {path} has moved into the layer behind it")
        new[name] = MovedReLU()
    for name, layer in new.items():
        if isinstance(layer, GroupedConv3d):  # files of before it had one
            tensors.setdefault(f"{name}.kept" if name else "kept", layer.kept)
    net = replace_layers(net, new)
    fill(net, tensors, f"skeleton: does not fit {path}", path)
    return net


def fill(net: nn.Module, tensors: dict[str, Tensor], refusal: str, path: str | os.PathLike[str]) -> None:
    """Load all of `tensors`, those of the file at `path`, into all of `net`. What a trainer calls the network may stand
    in front of all their names.

    Raises ValueError, starting with `refusal`, where they do not fit, and naming the file where they are not finite.
    """
    tensors = _of_network(tensors, net)
    check_types(net, tensors, refusal)
    try:
        missing, unexpected = net.load_state_dict(tensors, strict=False)
    except (RuntimeError, ValueError) as error:  # torch's word for other shapes, and a layer's for other masks
        raise ValueError(f"{refusal}; {str(error).splitlines()[-1].strip()}") from error
    if missing or unexpected:
        raise ValueError(f"{refusal}; missing {shown(missing[:3])}, not expected {shown(unexpected[:3])}")
    try:
        checks.check_finite(net)
    except ValueError as error:
        raise ValueError(f"path: {path}: {error}") from error


def _of_network(tensors: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """`tensors` by the names they have in `net`: without the first part of their names where that makes them fit."""
    names = net.state_dict().keys()
    shorter = {name.partition(".")[2]: tensor for name, tensor in tensors.items()}
    first = {name.partition(".")[0] for name in tensors}
    return shorter if len(first) == 1 and tensors.keys() != names and shorter.keys() == names else tensors


def is_saved(path: str | os.PathLike[str]) -> bool:
    """Whether `save` wrote the file. False too for one that is not there, or cannot be read."""
    try:
        check_file(path)
        with safe_open(path, framework="pt") as file:
            return "lrw" in (file.metadata() or {})
    except (*UNREADABLE, OSError):
        return False


def read(path: str | os.PathLike[str]) -> tuple[Header, dict[str, Tensor]]:
    """(header, tensors) of a file written by `save`, checked against each other. Raises as `load` does."""
    check_file(path)
    try:
        metadata, tensors = read_safetensors(path)
    except (*UNREADABLE, OSError) as error:
        raise ValueError(f"path: {path} is no safetensors file ({in_a_line(error)})") from error
    if "lrw" not in metadata:
        raise ValueError(f"path: {path} was not written by lrw.save")
    try:
        header = read_header(metadata["lrw"])
        for name, form in header.layers.items():
            check_tensors(name, form, tensors)
    except ValueError as error:
        raise ValueError(f"path: {path} {error}") from error
    if header.digest is not None and header.digest != digest(header.said, tensors):
        raise ValueError(f"path: {path} is damaged: its content does not have the digest in its header")
    return header, tensors


def _unwrapped(net: nn.Module) -> nn.Module:
    """The network inside DistributedDataParallel, DataParallel and torch.compile."""
    while True:
        if isinstance(net, nn.parallel.DistributedDataParallel | nn.DataParallel):
            net = net.module
        elif type(net).__name__ == "OptimizedModule":
            net = net._orig_mod  # type: ignore[assignment]
        else:
            return net
