"""Files of `lrw.save`: what is wrong in one is named with the file."""

import json
import os
import resource
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import lrw
from lrw.checkpoint import fill
from lrw.header import digest
from lrw.state_dict import read_state_dict
from lrw_kernels.winograd import Tile
from verify.damage import refusal
from verify.unit.lrw.small_nets import X

Tensors, Layer = dict[str, Tensor], dict[str, Any]
TILE = "F(2x2x2,3x3x3)@0,0,0[0 1 -1;0 1 -1;0 1 -1]"


def header(**layer: Any) -> Layer:
    """As every version before the digest wrote it, for a network that is one WinogradConv3d(1, 2)."""
    form = {
        "kind": "winograd", "in_channels": 1, "out_channels": 2, "tile": TILE, "padding": [1, 1, 1], "kept": None,
        "rectified": False, "bias": True, "rank": None, "blocks": None,
    }  # fmt: skip
    return {"format": 1, "version": "1.0", "layers": {"": form | layer}, "moved_relus": []}


def tensors(**other: Tensor) -> Tensors:
    torch.manual_seed(0)
    return {"weight": torch.randn(64, 1, 2), "bias": torch.randn(2), "mask": torch.ones(64, 1, 1).bool(), **other}


def written(path: Path, said: Layer | str, found: Tensors) -> Path:
    save_file(found, path, metadata={"lrw": said if isinstance(said, str) else json.dumps(said)})
    return path


def conv() -> nn.Conv3d:
    return nn.Conv3d(1, 2, 3, padding=1)


def test_files_of_the_format_before_load_as_they_did(tmp_path: Path) -> None:
    path = written(tmp_path / "old", header(), tensors())
    layer = lrw.WinogradConv3d(1, 2, padding=1)
    layer.load_state_dict(tensors())
    loaded = lrw.load(path, conv())
    assert torch.equal(loaded(X), layer(X))
    assert torch.equal(lrw.load(lrw.save(loaded, tmp_path / "new"), conv())(X), layer(X))


def test_files_of_the_format_before_load_pruned_and_in_blocks(tmp_path: Path) -> None:
    kept, few = list(range(3, 30)), [5, 9]
    layer = lrw.WinogradConv3d(1, 2, padding=1)
    layer.load_state_dict(tensors())
    layer.keep(kept)
    mask = tensors(mask=layer.mask)
    assert torch.equal(lrw.load(written(tmp_path / "a", header(kept=kept), mask), conv())(X), layer(X))
    assert torch.equal(lrw.load(written(tmp_path / "b", header(), mask), conv())(X), layer(X))
    weight, bias = layer.weight.detach(), layer.bias.detach()
    blocks = {"kind": "grouped", "blocks": [[1, kept], [1, few]], "kept": kept}
    parts = {"weight.0": weight[kept, :, :1].clone(), "weight.1": weight[few, :, 1:].clone(), "bias": bias}
    grouped = lrw.load(written(tmp_path / "c", header(**blocks), parts), conv())(X)
    layer.keep(few)
    expected = lrw.load(tmp_path / "a", conv())(X)[:, :1], layer(X)[:, 1:]
    torch.testing.assert_close(grouped, torch.cat(expected, 1), rtol=1e-5, atol=1e-5)


RISING = list(range(10))
SOME = tensors()["mask"].index_fill(0, torch.arange(10, 64), False)
COMPRESSED = {"weight": torch.ones(10, 1, 2), "bias": torch.ones(2), "kept": torch.arange(10)}
TEXT = json.dumps(header())
BAD: dict[str, tuple[Layer | str, Tensors, str]] = {
    **{
        f"{kind} weights": (header(), tensors(weight=torch.ones(64, 1, 2).to(kind)), "tensor 'weight': dtype torch.")
        for kind in (torch.bool, torch.int8, torch.int64, torch.complex64, torch.float8_e4m3fn)
    },
    "NaN": (header(), tensors(weight=torch.full((64, 1, 2), float("nan"))), "weight: weights hold NaN or infinity"),
    "infinity": (header(), tensors(bias=torch.tensor([0, float("inf")])), "bias: weights hold NaN or infinity"),
    "infinity in float32": (header(), tensors(bias=torch.full((2,), 1e300, dtype=torch.float64)), "bias: weights hold"),
    "mask of floats": (header(), tensors(mask=torch.ones(64, 1, 1)), "tensor 'mask': torch.float32 .*; accepted is"),
    "mask of bytes": (header(), tensors(mask=torch.ones(64, 1, 1).byte()), "tensor 'mask': torch.uint8"),
    "mask of 2": (header(), tensors(mask=torch.full((64, 1, 1), 2).byte().view(torch.bool)), "bytes other than 0"),
    "mask that is short": (header(), tensors(mask=torch.ones(63, 1, 1).bool()), r"'mask': torch.bool \[63, 1, 1\]"),
    "mask that is flat": (header(), tensors(mask=torch.ones(64).bool()), r"'mask': torch.bool \[64\]"),
    "mask of nothing": (header(), tensors(mask=torch.zeros(64, 1, 1).bool()), "'mask': .* keeps some position"),
    "no mask": (header(), {k: v for k, v in tensors().items() if k != "mask"}, r"missing \['mask'\]"),
    "kept that is not the mask": (header(kept=[1, 2]), tensors(mask=SOME), "kept: .* positions that mask has"),
    "kept that is not the tensor": (
        header(kind="compressed", kept=list(range(1, 11))), COMPRESSED, "kept: .* positions that kept has"
    ),
    "kept of floats": (
        header(kind="compressed", kept=RISING), COMPRESSED | {"kept": torch.arange(10.0)}, "'kept': torch.float32"
    ),
    "kept without end": (header(kept=list(range(65))), tensors(), "kept: position 64 outside"),
    "kept that falls": (header(kept=[2, 1]), tensors(), "kept: positions must rise"),
    "kept below 0": (header(kept=[-1, 1]), tensors(), "kept: position -1 outside"),
    "kept of nothing": (header(kept=[]), tensors(), "kept: no position at all"),
    "kept as a text": (header(kept="012"), tensors(), "kept: '012'; accepted is a list"),
    "kept of true": (header(kept=[True]), tensors(), r"kept: \[True\]; accepted is a list of whole numbers"),
    "rectified x": (header(rectified="x"), tensors(), "layer '': rectified: 'x'; accepted is true or false"),
    "rectified 1": (header(rectified=1), tensors(), "rectified: 1; accepted is true or false"),
    "bias null": (header(bias=None), tensors(), "bias: None; accepted is true or false"),
    "bias that is not there": (header(bias=False), tensors(), r"not expected \['bias'\]"),
    "another kind": (header(kind="dense"), tensors(), "kind: 'dense'; accepted are winograd, lowrank"),
    "no kind": (header(kind=None), tensors(), "kind: None; accepted is a string"),
    "kinds": (header(kind=["winograd"]), tensors(), r"kind: \['winograd'\]; accepted is a string"),
    "rank of a dense layer": (header(rank=3), tensors(), "rank: 3; accepted is null"),
    "rank null": (header(kind="lowrank"), tensors(), "rank: None; accepted is null, except"),
    "rank 1e9": (header(kind="lowrank", rank=10**9), tensors(), "rank: 1000000000; accepted is .* from 1 to 64"),
    "rank x": (header(kind="lowrank", rank="4"), tensors(), "rank: '4'; accepted is a whole number"),
    "blocks of a dense layer": (header(blocks=[]), tensors(), r"blocks: \[\]; accepted is null"),
    "blocks of too few": (header(kind="grouped", blocks=[[1, [0]]]), tensors(), "blocks: .* of 2 output channels"),
    "blocks of texts": (header(kind="grouped", blocks=["ab"]), tensors(), "blocks: 'ab'; accepted is"),
    "blocks of nulls": (header(kind="grouped", blocks=[None, [1, None]]), tensors(), "blocks: None; accepted is"),
    "blocks without kept": (header(kind="grouped", blocks=[[2, None]]), tensors(), "kept: None; accepted is a list"),
    "blocks and kept": (header(kind="grouped", blocks=[[2, [1]]], kept=[2]), tensors(), "kept: .* its blocks have"),
    "padding 1e9": (header(padding=[10**9] * 3), tensors(), "padding: .*; accepted are 3 whole numbers from 0 to 64"),
    "padding of floats": (header(padding=[1.0, 1, 1]), tensors(), "padding: .* whole numbers"),
    "padding of texts": (header(padding="111"), tensors(), "padding: '111'; accepted are 3 whole numbers"),
    "padding of two axes": (header(padding=[1, 1]), tensors(), "padding: .* 3 whole numbers"),
    "padding null": (header(padding=[None] * 3), tensors(), "padding: .* 3 whole numbers"),
    "channels 0": (header(in_channels=0), tensors(), "in_channels: 0; accepted is a whole number from 1 to 1048576"),
    "channels 1e12": (header(out_channels=10**12), tensors(), "out_channels: 1000000000000; accepted is"),
    "channels true": (header(in_channels=True), tensors(), "in_channels: True; accepted is a whole number"),
    "channels of others": (header(in_channels=2**20), tensors(), "tensor 'weight': one of shape .* its header says"),
    "tile 1e9999999": (header(tile=TILE.replace("1 -1]", "1e9999999 -1]")), tensors(), "tile: .* is not of the form"),
    "a long tile": (header(tile=TILE * 10**5), tensors(), "tile: .* is not of the form"),
    "tile null": (header(tile=None), tensors(), "tile: None; accepted is a string"),
    "another tile": (header(tile=str(Tile.of(4))), tensors(), r"'weight': one of shape \[64, 1, 2\]; .* \[216, 1, 2\]"),
    "more keys": (header(dilation=2), tensors(), "layer '': 'dilation'; accepted are kind,"),
    "a layer that is a list": (header() | {"layers": {"": []}}, tensors(), "layer '': a JSON list; accepted is"),
    "layers in a list": (header() | {"layers": [header()]}, tensors(), "layers: .*; accepted is an object"),
    "layers null": (header() | {"layers": None}, tensors(), "layers: None; accepted is an object"),
    "names of ReLUs": (header() | {"moved_relus": [["1"]]}, tensors(), "moved_relus: .* names of layers"),
    "ReLUs in a text": (header() | {"moved_relus": "1"}, tensors(), "moved_relus: '1'; accepted is a list"),
    "format true": (header() | {"format": True}, tensors(), "has format True; this version reads format 1"),
    "format null": (header() | {"format": None}, tensors(), "has format None; this version reads format 1"),
    "format x": (header() | {"format": "1"}, tensors(), "has format '1'; this version reads format 1"),
    "no digest": (header() | {"format": 2}, tensors(), "digest: None; accepted is a string"),
    "not an object": ("[1]", tensors(), "a JSON list; accepted is an object"),
    "no JSON": ("lrw", tensors(), "no JSON"),
    "nothing": ("", tensors(), "no JSON"),
    "NaN in JSON": (TEXT.replace("[1, 1, 1]", "[NaN, 1, 1]"), tensors(), "the number 'NaN'; accepted are finite"),
    "1e999": (TEXT.replace("[1, 1, 1]", "[1e999, 1, 1]"), tensors(), "the number '1e999'; accepted are finite"),
    "many digits": (TEXT.replace("[1, 1, 1]", f"[{'9' * 5000}, 1, 1]"), tensors(), "a whole number of 5000 digits"),
    "repeated keys": (TEXT.replace('"kept"', '"padding": [0, 0, 0], "kept"'), tensors(), "'padding' stands there"),
    "repeated layers": (TEXT.replace('"layers": {', '"layers": {"": 1, '), tensors(), "'' stands there twice"),
    "nested": (TEXT.replace("[1, 1, 1]", "[" * 50 + "]" * 50), tensors(), "nested more than 16 deep"),
    "nested deeply": ("[" * 10**5, tensors(), "nested too deeply"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_no_file_of_ours_says_is_named_with_the_file(name: str, tmp_path: Path) -> None:
    said, found, message = BAD[name]
    path = written(tmp_path / "a.safetensors", said, found)
    with pytest.raises(ValueError, match=message) as caught:
        lrw.load(path, conv())
    assert str(path) in str(caught.value)
    assert refusal(lambda: lrw.load(path, conv())) == str(caught.value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_floating_weights_of_other_types_load(dtype: torch.dtype, tmp_path: Path) -> None:
    weight = torch.arange(128.0).view(64, 1, 2).to(dtype)
    loaded = lrw.load(written(tmp_path / "a", header(), tensors(weight=weight)), conv())
    assert torch.equal(loaded.weight, weight.float())


def changed(path: Path, at: int) -> Path:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)
    return path


def test_a_flipped_bit_is_told_wherever_it_is(tmp_path: Path) -> None:
    path = lrw.save(lrw.WinogradConv3d(1, 2, padding=1), tmp_path / "a")
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    data = [8 + length, 8 + length + (len(raw) - length) // 2, len(raw) - 1]
    text = [raw.index(rb"\"padding\": [1") + len(rb"\"padding\": ["), raw.index(b"version") + 14]
    for at in (*data, *text):
        path.write_bytes(raw)
        said = refusal(lambda at=at: lrw.load(changed(path, at), conv()))  # type: ignore[misc]
        assert said is not None
        assert f"path: {path} is damaged: its content does not have the digest in its header" in said


class Odd(nn.Module):
    """A network with buffers of every type that files hold."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 1, 3)
        types = (torch.bool, torch.uint8, torch.int16, torch.int64, torch.bfloat16, torch.complex64, torch.float8_e5m2)
        for i, dtype in enumerate(types):
            self.register_buffer(f"b{i}", torch.tensor([0.0, 1.0]).to(dtype))
        self.register_buffer("single", torch.tensor(3.0))
        self.register_buffer("empty", torch.empty(0, 2))
        self.register_buffer("endless", torch.tensor([float("inf"), float("nan")]))


def test_the_digest_is_over_every_type(tmp_path: Path) -> None:
    net = lrw.to_winograd(Odd())
    loaded = lrw.load(lrw.save(net, tmp_path / "a"), Odd())
    for name, buffer in net.named_buffers():
        found = loaded.get_buffer(name)
        assert found.dtype == buffer.dtype
        assert found.contiguous().reshape(-1).view(torch.uint8).equal(buffer.reshape(-1).view(torch.uint8)), name


def test_the_digest_is_of_names_types_shapes_and_bytes() -> None:
    one = torch.arange(4, dtype=torch.int32)
    others: list[Tensors] = [
        {"a": one}, {"b": one}, {"a": one.view(2, 2)}, {"a": one.view(torch.float32)}, {"a": one + 1}, {"a": one[:3]}
    ]  # fmt: skip
    assert len({digest({}, t) for t in others} | {digest({"x": 1}, {"a": one})}) == 7
    assert digest({}, {"a": one, "b": one[:2]}) == digest({}, {"b": one[:2].clone(), "a": one.clone()})


def test_the_header_says_what_the_tensors_say(tmp_path: Path) -> None:
    """A mask that is copied in place, as averaged models do it, is saved as it is."""
    layer = lrw.WinogradConv3d(1, 2, padding=1)
    layer.mask.copy_(SOME)
    assert torch.equal(lrw.load(lrw.save(layer, tmp_path / "a"), conv()).mask, SOME)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_have_what_the_umask_leaves(umask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        path = lrw.save(lrw.WinogradConv3d(1, 2), tmp_path / "a")
        again = lrw.save(lrw.WinogradConv3d(1, 2), tmp_path / "a")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == again.stat().st_mode & 0o777 == mode


def test_a_full_disk_is_an_oserror_of_the_file_and_changes_nothing(tmp_path: Path) -> None:
    path = lrw.save(lrw.WinogradConv3d(1, 2), tmp_path / "a")
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            lrw.save(lrw.WinogradConv3d(1, 64), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_files_that_cannot_be_read_are_oserrors_that_name_them(tmp_path: Path) -> None:
    path = lrw.save(lrw.WinogradConv3d(1, 2), tmp_path / "a")
    path.chmod(0)
    with pytest.raises(PermissionError, match=str(path)):
        lrw.load(path, conv())


@pytest.mark.parametrize("read", [lrw.load, lambda path, net: read_state_dict(path)])
def test_folders_are_no_files(read: Callable[[Path, nn.Module], object], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"path: no file {tmp_path}"):
        read(tmp_path, conv())


@pytest.mark.parametrize(
    ("name", "wrapped"),
    [
        ("net.ckpt", lambda tensors: {"state_dict": {"model." + k: t for k, t in tensors.items()}, "epoch": 3}),
        ("net.bin", lambda tensors: tensors),
        ("net.weights", lambda tensors: {"model": tensors}),
        (
            "checkpoint_final.pth",
            lambda tensors: {"network_weights": tensors, "logging": {"loss": [np.float64(0.5), np.float32(0.25)]}},
        ),
    ],
)
def test_checkpoints_of_trainers_are_told_by_their_content(name: str, wrapped: Any, tmp_path: Path) -> None:
    """Lightning's, one without a suffix of torch's, nnU-Net's with NumPy's numbers beside the weights."""
    torch.manual_seed(0)
    given, net = (nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2)) for _ in range(2))
    torch.save(wrapped(given.state_dict()), tmp_path / name)
    fill(net, read_state_dict(tmp_path / name), "net: does not fit", tmp_path / name)
    for key, tensor in given.state_dict().items():
        assert torch.equal(net.state_dict()[key], tensor)


def test_safetensors_are_told_by_their_content(tmp_path: Path) -> None:
    tensors = {"weight": torch.ones(2)}
    save_file(tensors, tmp_path / "net.pt")
    assert torch.equal(read_state_dict(tmp_path / "net.pt")["weight"], tensors["weight"])
    for length in range(80, 160, 8):  # of the header: 128 begins as pickles do
        name = "w" * (length - 60)
        save_file({name: torch.ones(2)}, tmp_path / "net.safetensors")
        assert list(read_state_dict(tmp_path / "net.safetensors")) == [name]


def test_numbers_of_other_sizes_and_kinds_are_refused(tmp_path: Path) -> None:
    for value in (np.str_("x" * 100), np.complex128(1), np.void(b"12345678901")):
        torch.save({"state_dict": {"w": torch.ones(1)}, "best": value}, tmp_path / "net.pt")
        with pytest.raises(ValueError, match=r"net\.pt holds no state dict"):
            read_state_dict(tmp_path / "net.pt")
    torch.serialization.add_safe_globals([np.dtype])
    try:
        torch.save({"state_dict": {"w": torch.ones(1)}}, tmp_path / "net.pt")
        read_state_dict(tmp_path / "net.pt")
        assert np.dtype in torch.serialization.get_safe_globals()
    finally:
        torch.serialization.clear_safe_globals()
