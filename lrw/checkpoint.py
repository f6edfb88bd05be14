"""Save and load networks with Winograd layers: safetensors, no pickle, the structure beside the tensors.

The file's metadata holds one JSON text under "lrw": format version, and for each Winograd layer its kind, channels,
tile (with origin and points), padding, kept columns (by block), rank and whether it is rectified. `load` rebuilds those
layers inside a plain network.
"""

import json
import os
import struct
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeGuard
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lrw import checks
from lrw.geometry import Geometry
from lrw.layers import copied, named_layers, replace_layers
from lrw.nn import (
    CompressedConv3d,
    GroupedConv3d,
    LowRankWinogradConv3d,
    MovedReLU,
    WinogradConv3d,
    WinogradLayer,
)
from lrw.version import __version__
from lrw_kernels.winograd import Tile, kept_positions

FORMAT = 1
# What reading a damaged or foreign file with torch's restricted unpickler or safetensors may raise.
UNREADABLE = (SafetensorError, UnpicklingError, RuntimeError, EOFError, LookupError, AttributeError, struct.error)
_ADVICE = "accepted are tensors by name, such as torch.save(net.state_dict(), ...) writes"
_DAMAGED = "it is empty, cut off, damaged or no file of"
_KINDS = {
    "winograd": WinogradConv3d,
    "lowrank": LowRankWinogradConv3d,
    "compressed": CompressedConv3d,
    "grouped": GroupedConv3d,
}


def save(net: nn.Module, path: str | os.PathLike[str]) -> Path:
    """Write `net`'s tensors and Winograd structure to `path`, whole or not at all; returns the path.

    Raises ValueError for non-finite weights and for Winograd layers whose weights are computed from others
    (torch.nn.utils.prune, weight_norm), FileNotFoundError for a folder that is not there.
    """
    net = _unwrapped(net)
    checks.check_finite(net)
    found = named_layers(net, WinogradLayer)
    checks.check_tensors(found)
    layers = {_plain(name): _describe(layer) for name, layer in found.items()}
    moved = [_plain(name) for name in named_layers(net, MovedReLU)]
    described = {"format": FORMAT, "version": __version__, "layers": layers, "moved_relus": moved}
    metadata = {"lrw": json.dumps(described)}
    plain = {"device": "cpu", "memory_format": torch.contiguous_format, "copy": True}
    tensors = {_plain(name): tensor.detach().to(**plain) for name, tensor in net.state_dict().items()}
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"path: no folder {target.parent}")
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        save_file(tensors, partial, metadata=metadata)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def load(path: str | os.PathLike[str], skeleton: nn.Module) -> nn.Module:
    """The network saved at `path`: a copy of `skeleton` (the plain network's architecture) with its Winograd layers.

    A skeleton that already has Winograd layers must agree with the file in tile, origin and padding. ReLUs that moved
    into layers (`lrw.rectify`) go from the copy. Raises ValueError for a file that is not lrw's, of another format
    version, or that does not fit; FileNotFoundError where none is.
    """
    description, tensors = read(path)
    net = copied(skeleton)
    modules = dict(net.named_modules())
    new: dict[str, nn.Module] = {}
    for name, layer in description["layers"].items():
        if name not in modules:
            raise ValueError(f"skeleton: has no layer {name!r}, which {path} describes")
        try:
            new[name] = _rebuild(layer, modules[name], name)
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"path: {path} describes layer {name!r} in a way this version cannot read") from error
    for name in description.get("moved_relus", []):
        if not isinstance(modules.get(name), nn.ReLU | nn.Identity):
            raise ValueError(f"skeleton: {name!r} is no nn.ReLU, which {path} has moved into the layer behind it")
        new[name] = MovedReLU()
    net = replace_layers(net, new)
    fill(net, tensors, f"skeleton: does not fit {path}")
    return net


def fill(net: nn.Module, tensors: dict[str, Tensor], refusal: str) -> None:
    """Load all of `tensors` into all of `net`. Raises ValueError, starting with `refusal`, where they do not fit."""
    try:
        missing, unexpected = net.load_state_dict(tensors, strict=False)
    except RuntimeError as error:  # torch's word for other shapes
        raise ValueError(f"{refusal}; {str(error).splitlines()[-1].strip()}") from error
    if missing or unexpected:
        raise ValueError(f"{refusal}; missing {missing[:3]}, not expected {unexpected[:3]}")


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(description, tensors) of a file written by `save`. Raises as `load` does."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"path: no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("lrw")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise ValueError(f"path: {path} is no safetensors file ({error})") from error
    if text is None:
        raise ValueError(f"path: {path} was not written by lrw.save")
    description = json.loads(text)
    found = description.get("format") if isinstance(description, dict) else None
    if found != FORMAT or not isinstance(description.get("layers"), dict):
        raise ValueError(f"path: {path} has format {found}; this version reads format {FORMAT}")
    return description, tensors


def is_saved(path: str | os.PathLike[str]) -> bool:
    """Whether `save` wrote the file. False too for one that is not there, or cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            return "lrw" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a plain network's file: any safetensors, or a `.pt`/`.pth` state dict (read without running code).

    Of a trainer's checkpoint, which may hold numbers and tensors besides, it is "state_dict" or "model_state_dict".
    Raises FileNotFoundError where there is none, ValueError for a file that holds no tensors by name.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"path: no file {path}")
    found = _unpickled(path) if Path(path).suffix in (".pt", ".pth") else _safe(path)
    tensors = next((t for t in (found, *_inner(found)) if _is_state_dict(t)), None)
    if tensors is None:
        holds = ", ".join(map(repr, list(found)[:5])) if isinstance(found, dict) else f"a {type(found).__name__}"
        raise ValueError(f"path: {path} holds no state dict, but {holds}; {_ADVICE}")
    plain = {_plain(name): tensor for name, tensor in tensors.items()}
    wrapped = plain and all(name.startswith("module.") for name in plain)  # saved from inside DistributedDataParallel
    return {name.removeprefix("module.") if wrapped else name: tensor for name, tensor in plain.items()}


def _unpickled(path: str | os.PathLike[str]) -> object:
    """What a file of `torch.save` holds: tensors, numbers, texts, lists and dictionaries. Raises ValueError."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (*UNREADABLE, OSError) as error:
        if isinstance(error, OSError) and error.filename is not None:  # it says which, and why
            raise
        objects = isinstance(error, UnpicklingError) and (is_zipfile(path) or "GLOBAL" in str(error))
        what = f", but a whole model (or other objects); {_ADVICE}" if objects else f": {_DAMAGED} torch.save"
        raise ValueError(f"path: {path} holds no state dict{what}") from error


def _safe(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except UNREADABLE as error:
        raise ValueError(f"path: {path} holds no state dict: {_DAMAGED} safetensors ({error})") from error


def _inner(found: object) -> list[object]:
    """What trainers call the network's state dict in their checkpoints."""
    return [found.get(key) for key in ("state_dict", "model_state_dict")] if isinstance(found, dict) else []


def _is_state_dict(found: object) -> TypeGuard[dict[str, Tensor]]:
    if not isinstance(found, dict):
        return False
    return all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in found.items())


def _unwrapped(net: nn.Module) -> nn.Module:
    """The network inside DistributedDataParallel, DataParallel and torch.compile."""
    while True:
        if isinstance(net, nn.parallel.DistributedDataParallel | nn.DataParallel):
            net = net.module
        elif type(net).__name__ == "OptimizedModule":
            net = net._orig_mod  # type: ignore[assignment]
        else:
            return net


def _plain(name: str) -> str:
    """A tensor's name without what torch.compile puts in front of compiled submodules."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def _describe(layer: WinogradLayer) -> dict[str, Any]:
    kind = next(k for k, c in reversed(_KINDS.items()) if isinstance(layer, c))
    return {
        "kind": kind,
        "in_channels": layer.in_channels,
        "out_channels": layer.out_channels,
        "tile": str(layer.geometry.tile),
        "padding": list(layer.geometry.padding),
        "kept": None if layer.geometry.kept is None else list(layer.geometry.kept),
        "rectified": layer.geometry.rectified,
        "bias": layer.bias is not None,
        "rank": layer.rank if isinstance(layer, LowRankWinogradConv3d) else None,
        "blocks": layer.blocks if isinstance(layer, GroupedConv3d) else None,
    }


def _rebuild(d: dict[str, Any], old: nn.Module, name: str) -> WinogradLayer:
    tile = Tile.parse(d["tile"])
    pads = (d["padding"][0], d["padding"][1], d["padding"][2])
    kept, rectified = None if d["kept"] is None else kept_positions(d["kept"], tile), bool(d["rectified"])
    geometry = Geometry(tile, pads, kept, rectified=rectified)
    if not isinstance(old, WinogradLayer | nn.Conv3d):
        raise ValueError(f"skeleton: layer {name!r} is a {type(old).__name__}; the file has a 3D convolution there")
    old = checks.fitted(old) if isinstance(old, nn.Conv3d) else old
    ours, theirs = (old.in_channels, old.out_channels), (d["in_channels"], d["out_channels"])
    if ours != theirs or (isinstance(old, nn.Conv3d) and tuple(old.kernel_size) != tile.kernel_size):
        raise ValueError(f"skeleton: layer {name!r} has channels {ours}, the file has {theirs} and {tile.name}")
    if isinstance(old, WinogradLayer) and (old.geometry.tile, old.geometry.padding) != (tile, pads):
        mine = f"{old.geometry.tile} padding {old.geometry.padding}"
        raise ValueError(f"skeleton: layer {name!r} has tile {mine}, the file has {tile} padding {pads}")
    anchor = next((p for p in old.parameters()), torch.empty(0))
    tensor: dict[str, Any] = {"device": anchor.device, "dtype": anchor.dtype}
    backend = old.backend if isinstance(old, WinogradLayer) else "auto"
    if d["kind"] == "compressed":
        return CompressedConv3d(
            d["in_channels"], d["out_channels"], geometry, bias=d["bias"], backend=backend, **tensor
        )
    if d["kind"] == "grouped":
        blocks = [(int(channels), kept_positions(kept, tile) if kept else ()) for channels, kept in d["blocks"]]
        return GroupedConv3d(d["in_channels"], blocks, geometry, bias=d["bias"], backend=backend, **tensor)
    layer = WinogradConv3d(d["in_channels"], d["out_channels"], tile.kernel_size, padding=pads, tile=tile,
                           bias=d["bias"], rectified=rectified, backend=backend, **tensor)  # fmt: skip
    return layer if d["rank"] is None else LowRankWinogradConv3d.of(layer, d["rank"])
