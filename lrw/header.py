"""What the header of a saved network says beside its tensors: each Winograd layer's form, and a digest of it all.

Read with the care that files of others need: every entry has its type and range checked, and the tensors of the file
are compared with what the header says of them, before a layer is made.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lrw import checks
from lrw.geometry import Geometry
from lrw.nn import CompressedConv3d, GroupedConv3d, LowRankWinogradConv3d, WinogradConv3d, WinogradLayer
from lrw.nn.units import DIAGONAL, UNITS
from lrw.version import __version__
from lrw_kernels.untrusted import MOST_CHARACTERS, Entries, parse_json, shown
from lrw_kernels.winograd import Block, Tile, kept_positions
from lrw_kernels.winograd.tile import MAX_PADDING

FORMAT = 2  # 1 has no digest
MAX_CHANNELS = 2**20
Shape = tuple[int, ...]
_KINDS: dict[str, type[WinogradLayer]] = {
    "winograd": WinogradConv3d,
    "lowrank": LowRankWinogradConv3d,
    "compressed": CompressedConv3d,
    "grouped": GroupedConv3d,
}
_SAID = (
    "kind",
    "in_channels",
    "out_channels",
    "tile",
    "padding",
    "kept",
    "rectified",
    "bias",
    "rank",
    "blocks",
    "units",
)


@dataclass(frozen=True)
class Form:
    """One layer's: rank is None unless its kind is "lowrank", blocks is empty unless "grouped", units are "none" unless
    it is trained."""

    kind: str
    in_channels: int
    out_channels: int
    geometry: Geometry
    bias: bool
    rank: int | None
    blocks: tuple[Block, ...]
    units: str = "none"

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shapes of the tensors that such a layer holds its weights in."""
        t, io = self.geometry.tile.positions, (self.in_channels, self.out_channels)
        found: dict[str, Shape] = {"bias": io[1:]} if self.bias else {}
        if self.kind == "grouped":
            parts = enumerate(self.blocks)
            return found | {f"weight.{i}": (len(kept), io[0], channels) for i, (channels, kept) in parts}
        found["weight"] = (self.geometry.columns if self.kind == "compressed" else t, *io)
        return found if self.rank is None else found | {"Gr": (self.rank, *io), "Gc": (t, self.rank)}


@dataclass(frozen=True)
class Header:
    """A whole network's; `digest` is None in files of format 1."""

    layers: dict[str, Form]
    moved_relus: tuple[str, ...]
    said: dict[str, Any]
    digest: str | None


def header_text(layers: Mapping[str, WinogradLayer], moved_relus: Iterable[str], tensors: Mapping[str, Tensor]) -> str:
    """The JSON that `read_header` reads. Raises ValueError for a network whose layers take more than it would read."""
    forms = {name: _described(layer) for name, layer in layers.items()}
    said = {"format": FORMAT, "version": __version__, "layers": forms, "moved_relus": list(moved_relus)}
    text = json.dumps({**said, "digest": digest(said, tensors)})
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"net: its layers take {len(text)} characters to describe; accepted are {MOST_CHARACTERS}")
    return text


def read_header(text: str) -> Header:
    """What `text` says, every entry of it checked. Raises ValueError for all that `header_text` does not write."""
    found = Entries(parse_json(text, "header"))
    version = found.values.get("format")
    if version not in (1, FORMAT) or isinstance(version, bool):
        raise ValueError(f"has format {shown(version)}; this version reads format 1 and {FORMAT}")
    found.only(("format", "version", "layers", "moved_relus", "digest"))
    moved = found.list("moved_relus") if "moved_relus" in found else []
    if not all(isinstance(name, str) for name in moved):
        raise found.refused("moved_relus", "are names of layers")
    said = {key: value for key, value in found.values.items() if key != "digest"}
    layers = found.entries("layers")
    forms = {}
    for name, value in layers.values.items():
        try:
            forms[name] = _form(Entries(value))
        except ValueError as error:
            raise ValueError(f"layer {shown(name)}: {error}") from error
    return Header(forms, tuple(moved), said, None if version == 1 else found.text("digest"))


def digest(said: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over what the header says and over all tensors' names, types, shapes and bytes.

    A damaged file is told by it, wherever the damage is; who forges one can forge its digest. SHA-256 as manifests have
    it, because processors have instructions for it: a gigabyte and more a second.
    """
    names = sorted(tensors)
    known = [[name, str(tensors[name].dtype), list(tensors[name].shape)] for name in names]
    found = hashlib.sha256(json.dumps([said, known], sort_keys=True).encode())
    for name in names:
        found.update(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def check_tensors(name: str, form: Form, tensors: Mapping[str, Tensor]) -> None:
    """Raises ValueError where the file's `tensors` of layer `name` are not those of its `form`."""
    for key, shape in form.shapes.items():
        tensor = tensors.get(_inside(name, key))
        if tensor is None or tuple(tensor.shape) != shape:
            holds = "no such tensor" if tensor is None else f"one of shape {list(tensor.shape)}"
            raise ValueError(f"tensor {shown(_inside(name, key))}: {holds}; its header says {list(shape)}")
    stored, place = _stored_positions(name, form, tensors)
    if stored is not None and stored != _said_positions(form):
        raise ValueError(f"layer {shown(name)}: kept: its header does not say the positions that {place} has")


def layer_of(form: Form, old: nn.Module, name: str, file: object) -> WinogradLayer:
    """A new layer in the place of the skeleton's `old`, its tensors not yet loaded. Raises ValueError naming
    the file where `old` is another layer."""
    tile, pads = form.geometry.tile, form.geometry.padding
    if not isinstance(old, WinogradLayer | nn.Conv3d):
        raise ValueError(f"skeleton: layer {name!r} is a {type(old).__name__}; {file} has a 3D convolution there")
    old = checks.fitted(old) if isinstance(old, nn.Conv3d) else old
    ours, theirs = (old.in_channels, old.out_channels), (form.in_channels, form.out_channels)
    if ours != theirs or (isinstance(old, nn.Conv3d) and tuple(old.kernel_size) != tile.kernel_size):
        raise ValueError(f"skeleton: layer {name!r} has channels {ours}, {file} has {theirs} and {tile.name}")
    if isinstance(old, WinogradLayer) and (old.geometry.tile, old.geometry.padding) != (tile, pads):
        mine = f"{old.geometry.tile} padding {old.geometry.padding}"
        raise ValueError(f"skeleton: layer {name!r} has tile {mine}, {file} has {tile} padding {pads}")
    anchor = next((p for p in old.parameters()), torch.empty(0))
    backend = old.backend if isinstance(old, WinogradLayer) else "auto"
    more: dict[str, Any] = {"bias": form.bias, "backend": backend, "device": anchor.device, "dtype": anchor.dtype}
    if form.kind == "compressed":
        return CompressedConv3d(*theirs, form.geometry, **more)
    if form.kind == "grouped":
        return GroupedConv3d(form.in_channels, form.blocks, form.geometry, **more)
    own = form.units if form.rank is None else "none"
    layer = WinogradConv3d(
        *theirs, tile.kernel_size, padding=pads, tile=tile, rectified=form.geometry.rectified, units=own, **more
    )
    return layer if form.rank is None else LowRankWinogradConv3d.of(layer, form.rank, units=form.units)


def _described(layer: WinogradLayer) -> dict[str, Any]:
    geometry = layer.geometry
    units = {"units": layer.units} if isinstance(layer, WinogradConv3d) and layer.units != "none" else {}
    return {
        **units,
        "kind": next(k for k, c in reversed(_KINDS.items()) if isinstance(layer, c)),
        "in_channels": layer.in_channels,
        "out_channels": layer.out_channels,
        "tile": str(geometry.tile),
        "padding": list(geometry.padding),
        "kept": _kept(layer),
        "rectified": geometry.rectified,
        "bias": layer.bias is not None,
        "rank": layer.rank if isinstance(layer, LowRankWinogradConv3d) else None,
        "blocks": [[n, list(kept)] for n, kept in layer.blocks] if isinstance(layer, GroupedConv3d) else None,
    }


def _kept(layer: WinogradLayer) -> list[int] | None:
    """As the layer's tensors say, which are what the file holds; None stands for all."""
    if isinstance(layer, WinogradConv3d):
        kept: list[int] = layer.mask.flatten(1).any(1).nonzero().flatten().tolist()
        return None if len(kept) == layer.geometry.tile.positions else kept
    return layer.kept.tolist() if isinstance(layer, CompressedConv3d) else list(layer.geometry.positions)


def _form(said: Entries) -> Form:
    """One layer's entries, checked."""
    said.only(_SAID)
    kind = said.text("kind")
    if kind not in _KINDS:
        raise said.refused("kind", f"are {', '.join(_KINDS)}")
    for key, only in (("rank", "lowrank"), ("blocks", "grouped")):
        if said.null(key) != (kind != only):
            raise said.refused(key, f"is null, except for layers of kind {only}")
    io = said.whole("in_channels", 1, MAX_CHANNELS), said.whole("out_channels", 1, MAX_CHANNELS)
    d, h, w = said.wholes("padding", 3, 0, MAX_PADDING)
    tile = Tile.parse(said.text("tile"))
    kept = None if said.null("kept") else kept_positions(_wholes(said.list("kept")), tile)
    geometry = Geometry(tile, (d, h, w), kept, rectified=said.flag("rectified"))
    rank = said.whole("rank", 1, tile.positions) if kind == "lowrank" else None
    blocks = tuple(_block(block, io[1], tile) for block in said.list("blocks")) if kind == "grouped" else ()
    if kind == "grouped" and sum(channels for channels, _ in blocks) != io[1]:
        raise said.refused("blocks", f"are blocks of {io[1]} output channels together")
    if kind == "grouped" and tuple(sorted({p for _, part in blocks for p in part})) != geometry.positions:
        raise said.refused("kept", "are the positions that its blocks have")
    return Form(kind, *io, geometry, said.flag("bias"), rank, blocks, _units(said, kind))


def _units(said: Entries, kind: str) -> str:
    """In what weights or factors of a trained layer are counted; files of before, and of other layers, do not say."""
    if "units" not in said:
        return "none"
    units, accepted = said.text("units"), {"winograd": DIAGONAL, "lowrank": UNITS}.get(kind, ())
    if units not in accepted:
        every, own = ", ".join(UNITS), ", ".join(DIAGONAL)
        raise said.refused("units", f"are {every} for layers of kind lowrank and {own} for those of kind winograd")
    return units


def _block(value: object, most: int, tile: Tile) -> Block:
    if not isinstance(value, list) or len(value) != 2 or type(value[0]) is not int or not 1 <= value[0] <= most:
        raise ValueError(f"blocks: {shown(value)}; accepted is [channels, kept], of 1 to {most} channels")
    kept = _wholes(value[1])
    return value[0], kept_positions(kept, tile) if kept else ()


def _wholes(value: object) -> list[int]:
    if not isinstance(value, list) or not all(type(n) is int for n in value):
        raise ValueError(f"kept: {shown(value)}; accepted is a list of whole numbers")
    return value


def _stored_positions(name: str, form: Form, tensors: Mapping[str, Tensor]) -> tuple[Shape | None, str]:
    """(the positions that the tensors of layer `name` say are kept, by which of them); None where none says so."""
    mask, kept = tensors.get(_inside(name, "mask")), tensors.get(_inside(name, "kept"))
    if form.kind in ("winograd", "lowrank") and mask is not None:
        place, t = _inside(name, "mask"), form.geometry.tile.positions
        sizes = [(t,), (1, form.in_channels), (1, form.out_channels)]
        fits = mask.dim() == 3 and all(n in size for n, size in zip(mask.shape, sizes, strict=True))
        if mask.dtype != torch.bool or not fits or not bool(mask.any()):
            accepted = f"bool [{t}, 1 or {form.in_channels}, 1 or {form.out_channels}] that keeps some position"
            raise ValueError(f"tensor {shown(place)}: {mask.dtype} {list(mask.shape)}; accepted is {accepted}")
        if form.geometry.kept is None:  # also said of layers that compute what they dropped
            return None, place
        return tuple(mask.flatten(1).any(1).nonzero().flatten().tolist()), place
    if kept is not None:
        place = _inside(name, "kept")
        if kept.dtype != torch.int64 or kept.dim() != 1:
            raise ValueError(f"tensor {shown(place)}: {kept.dtype} {list(kept.shape)}; accepted is int64 [K]")
        return tuple(kept.tolist()), place
    return None, ""


def _said_positions(form: Form) -> Shape:
    """The positions by the header, as the layer's tensor has them: those of all blocks, one after the other."""
    return tuple(p for _, kept in form.blocks for p in kept) if form.kind == "grouped" else form.geometry.positions


def _inside(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key
