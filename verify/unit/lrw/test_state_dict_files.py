"""State dicts of others: what is of no use is named with the file, before memory is taken for it."""

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lrw.checkpoint import fill
from lrw.state_dict import read_state_dict
from verify.damage import refusal
from verify.unit.lrw.small_nets import small_net


def conv() -> nn.Conv3d:
    return nn.Conv3d(1, 2, 3, padding=1)


def changed(path: Path, at: int) -> Path:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)
    return path


def state(path: Path, value: object = None) -> Path:
    torch.save(small_net().state_dict() if value is None else value, path)
    return path


def compressed(path: Path, size: int = 0) -> Path:
    """The archive with compressed members, which claim any size; here with `size` zeros in place of a tensor."""
    with zipfile.ZipFile(state(path.with_suffix(".whole"))) as whole:
        members = {member.filename: whole.read(member) for member in whole.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, bytes(size) if size and name.endswith("data/0") else data)
    return path


def endless(path: Path) -> Path:
    """A pickle that asks for a petabyte."""
    path.write_bytes(b"\x80\x02cbuiltins\nbytearray\n\x8a\x07\x00\x00\x00\x00\x00\x00\x04\x85R.")
    return path


STATES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "one flipped bit": (lambda path: changed(state(path), path.stat().st_size // 3), "damaged"),
    "compressed": (compressed, "damaged"),
    "compressed to nothing": (lambda path: compressed(path, 10**9), "damaged"),
    "endless": (endless, "holds no state dict"),
    "on no device": (lambda path: state(path, {"a": torch.ones(2, device="meta")}), "but 'a'"),
    "sparse": (lambda path: state(path, {"a": torch.ones(2).to_sparse()}), "but 'a'"),
    "numbers": (lambda path: state(path, {1: torch.ones(2)}), "but 1"),
}


@pytest.mark.parametrize("name", STATES)
def test_state_dicts_of_no_use_are_named(name: str, tmp_path: Path) -> None:
    write, message = STATES[name]
    path = write(tmp_path / "a.pt")
    said = refusal(lambda: read_state_dict(path))
    assert said is not None
    assert said.startswith(f"path: {path} holds no state dict")
    assert message in said


def test_a_state_dict_without_checksums_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        path = state(tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_state_dict(path).keys() == small_net().state_dict().keys()


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.complex64, torch.float8_e4m3fn])
def test_weights_of_another_type_do_not_fill_a_network(dtype: torch.dtype) -> None:
    found = conv().state_dict() | {"weight": torch.ones(2, 1, 3, 3, 3).to(dtype)}
    with pytest.raises(ValueError, match=f"^file x; tensor 'weight': dtype {dtype}; accepted are float32, float64"):
        fill(conv(), found, "file x", "x")


def test_tensors_that_are_there_twice_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(1)}, path)
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    entry = raw[8 : 8 + length].strip()[1:-1]
    text = b"{%s,%s}" % (entry, entry)
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])
    assert load_file(path)["a"] == 1
    said = refusal(lambda: read_state_dict(path))
    assert said is not None
    assert "'a' stands there twice" in said
