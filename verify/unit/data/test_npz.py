"""NumPy archives: members that are encrypted, packed by other methods, or claim wrong sizes are refused by name."""

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lrw.data import load, load_arrays, load_medmnist
from lrw.data.limits import MOST_CLASSES
from verify.damage import judged
from verify.unit.data.small import medmnist_arrays

Archive = Callable[[dict[str, bytes]], bytes]


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as opened:
        for name, content in members.items():
            opened.writestr(f"{name}.npy", content)
    return file.getvalue()


def over(raw: bytes, layout: str, local: int, central: int, number: int) -> bytes:
    """`number` over a field of every member, at its places in the local header and in the directory."""
    edited = bytearray(raw)
    for mark, place in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
        start = edited.find(mark)
        while start >= 0:
            struct.pack_into(layout, edited, start + place, number)
            start = edited.find(mark, start + 1)
    return bytes(edited)


def doubled(members: dict[str, bytes]) -> bytes:
    """Two members of one name: the last two, whose names are as long."""
    return archive({**members, "test_labelz": b""}).replace(b"test_labelz", b"test_labels")


def claiming(members: dict[str, bytes], shape: str) -> bytes:
    """An archive whose training images claim another shape, in a header as long as before."""
    content = members["train_images"]
    stop = content.index(b"\n")
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(stop - 10)
    return archive({**members, "train_images": content[:10] + text + content[stop:]})


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda members: over(archive(members), "<H", 6, 8, 1), "is encrypted"),
        (
            lambda members: over(archive(members), "<H", 8, 10, 9),
            "packed by method 9; accepted are stored and deflated",
        ),
        (lambda members: archive(members, zipfile.ZIP_BZIP2), "packed by method 12; accepted"),
        (lambda members: archive(members, zipfile.ZIP_LZMA), "packed by method 14; accepted"),
        (lambda members: over(archive(members), "<I", 22, 24, 2**30), "claim 6442450944 bytes; accepted are at most"),
        (lambda members: over(archive(members), "<I", 22, 24, 2**16), "claims 600 bytes for uint8"),
        (lambda members: over(archive(members), "<I", 14, 16, 7), "Bad CRC-32"),
        (doubled, "it holds two arrays of one name"),
        (lambda members: claiming(members, "(10**12,)"), "alformed|parse"),
        (lambda members: claiming(members, "(999999999999,)"), "claims 999999999999 bytes .* it holds 600"),
        (lambda members: claiming(members, "(-1, -600)"), "unknown dimension"),
        (lambda members: claiming(members, "(" * 50), "EOF|parse"),
        (lambda members: archive({**members, "val_images": b"\x93NUMPY\x03\x00"}), r"version \(3, 0\); accepted are"),
        (lambda members: archive({**members, "val_images": b""}), "EOF"),
    ],
)
def test_an_archive_that_cannot_be_read_is_named(tmp_path: Path, write: Archive, message: str) -> None:
    path = tmp_path / "odd3d.npz"
    path.write_bytes(write({name: npy(array) for name, array in medmnist_arrays().items()}))
    with judged("odd3d.npz", most_memory=2**22):
        load_medmnist(path)
    with pytest.raises(ValueError, match=f"odd3d.npz is not a MedMNIST 3D .npz: .*({message})"):
        load_medmnist(path)


@pytest.mark.parametrize("label", [-1, MOST_CLASSES, 2**40, 2**63 - 1, 2**63 + 1])
def test_a_label_makes_no_name_for_each_number_below_it(tmp_path: Path, label: int) -> None:
    path = tmp_path / "many3d.npz"
    labels = np.array([[label], [0]], dtype=np.int64 if label < 2**63 else np.uint64)
    np.savez(path, **{**medmnist_arrays(), "val_labels": labels})
    message = rf"many3d.npz: val_labels go from -?\d+ to {max(label, 0)}; accepted are 0 to {MOST_CLASSES - 1}"
    with pytest.raises(ValueError, match=message):
        load_medmnist(path)
    packed = np.zeros((3, 2, 2, 2), dtype=labels.dtype)
    packed[0, 0, 0, 0] = label
    np.savez(path, images=np.zeros((3, 2, 2, 2), dtype=np.uint8), labels=packed, fold=np.arange(3))
    with pytest.raises(ValueError, match=message.replace("val_labels", "labels")):
        load_arrays(path)


def test_the_highest_label_is_accepted(tmp_path: Path) -> None:
    labels = np.array([[MOST_CLASSES - 1], [0]], dtype=np.uint64)
    np.savez(tmp_path / "most3d.npz", **{**medmnist_arrays(), "val_labels": labels})
    volumes = load(tmp_path / "most3d.npz")
    assert (len(volumes.classes), volumes.classes[-1]) == (MOST_CLASSES, str(MOST_CLASSES - 1))
    assert volumes.val.labels.tolist() == [MOST_CLASSES - 1, 0]
