"""Readers of data take whatever a file holds: a value comes back, or a documented error that names the file."""

import gzip
import io
import json
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrw.data import load, load_arrays, load_medmnist, load_nifti
from verify.damage import FUZZED, damaged, json_values, judged, with_odd_fields, written
from verify.unit.data.small import medmnist_arrays, write_nifti

MEDMNIST = {name: np.asarray(array) for name, array in medmnist_arrays((2, 3, 2)).items()}
SEGMENTED = {
    "images": np.arange(3 * 24, dtype=np.uint8).reshape(3, 2, 3, 4),
    "labels": np.arange(3 * 24, dtype=np.int16).reshape(3, 2, 3, 4) % 3,
    "fold": np.arange(3),
}


METHODS = (zipfile.ZIP_STORED,) * 4 + (zipfile.ZIP_DEFLATED,) * 4 + (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
HEADER = (  # of NIfTI-1: shape, type, spacing and scaling, codes, quaternion and sform
    *[(40 + 2 * index, "h") for index in range(8)],
    *[(70, "h"), (72, "h"), (252, "h"), (254, "h")],
    *[(start + 4 * index, "f") for start, count in ((76, 8), (108, 3), (256, 18)) for index in range(count)],
)


def packed(members: dict[str, bytes], method: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content, compress_type=method)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@st.composite
def archives(draw: st.DrawFn, arrays: dict[str, np.ndarray]) -> bytes:
    """An `.npz` with a damaged archive, or a sound one with a damaged array in it."""
    members = {name: npy(array) for name, array in arrays.items()}
    method = draw(st.sampled_from(METHODS))
    if draw(st.integers(0, 2)) == 0:
        return draw(damaged(packed(members, method)))
    name = draw(st.sampled_from(sorted(members)))
    members[name] = draw(damaged(members[name]) | st.builds(npy, odd_arrays(arrays[name])) | odd_headers(members[name]))
    return packed(members, method)


def odd_arrays(array: np.ndarray) -> st.SearchStrategy[np.ndarray]:
    """Arrays of the same shape with other dtypes and values, and of other shapes."""
    numbers = st.sampled_from((0, -1, 2**40, 2**62))
    full = numbers.map(lambda number: np.full(array.shape, number, dtype=np.int64))
    retyped = st.sampled_from(("u1", ">i2", "u8", "f4", "c8", "S3", "U2", "M8[s]", "i4,f4", "?")).map(np.dtype)
    return (
        full | retyped.map(lambda dtype: np.zeros(array.shape, dtype)) | st.sampled_from((array[:0], array[0], array.T))
    )


def odd_headers(content: bytes) -> st.SearchStrategy[bytes]:
    """The `.npy` file `content` with another shape or dtype in its header, of the same length."""
    start, stop = content.index(b"{"), content.index(b"\n")
    shapes = st.sampled_from(
        ("()", "(-1,)", "(-2, -3)", "(2**9,)", "(1.5,)", "(999999999999,)", "(0, 10**9)", "None", "(" * 60)
    )
    dtypes = st.sampled_from(("'|u1'", "'<i8'", "'|O'", "'|V0'", "'<U999999999'", "[('a', '<f4')]", "3", "'x'"))
    header = st.builds("{{'descr': {}, 'fortran_order': False, 'shape': {}, }}".format, dtypes, shapes)
    return header.map(lambda text: content[:start] + text.encode().ljust(stop - start)[: stop - start] + content[stop:])


@FUZZED
@given(archive=archives(MEDMNIST))
def test_a_damaged_medmnist_file_is_read_or_named(archive: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = written(tmp_path_factory.getbasetemp(), "damaged3d.npz", archive)
    with judged("damaged3d"):
        assert load_medmnist(path).train.images.numel() > 0


@FUZZED
@given(archive=archives(SEGMENTED))
def test_a_damaged_segmentation_is_read_or_named(archive: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = written(tmp_path_factory.getbasetemp(), "damaged.npz", archive)
    with judged("damaged"):
        assert load_arrays(path).segmented
    with judged("damaged"):
        assert len(load(path).classes) > 0


def volume(folder: Path, dtype: str) -> bytes:
    """A volume of 3 x 4 x 5 voxels, unpacked, of labels 0, 1, 2."""
    write_nifti(folder / "sound.nii", (np.arange(60).reshape(3, 4, 5) % 3).astype(dtype))
    return (folder / "sound.nii").read_bytes()


@st.composite
def damaged_volumes(draw: st.DrawFn, sound: bytes) -> tuple[str, bytes]:
    """How the file is to end, and what it holds: damaged before it is packed, after, or not packed."""
    content = draw(with_odd_fields(sound, HEADER) | damaged(sound) | st.just(sound))
    if draw(st.booleans()):
        return ".nii", content
    archive = gzip.compress(content, mtime=0)
    return ".nii.gz", draw(st.just(archive) | (damaged(archive) if content == sound else st.nothing()))


@FUZZED
@given(data=st.data(), dtype=st.sampled_from(("uint8", "int16", "float32", "float64")))
def test_a_damaged_volume_is_read_or_named(data: st.DataObject, dtype: str) -> None:
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sound = volume(folder, dtype)
        suffix, content = data.draw(damaged_volumes(sound))
        (folder / "only").mkdir()
        for name in ("a1.nii", "a2.nii", f"damaged{suffix}"):
            written(folder / "only", name, sound if name.startswith("a") else content)
        with judged("damaged"):
            assert load_nifti(folder, size=(4, 4, 4)).size == (4, 4, 4)


@FUZZED
@given(data=st.data(), kind=st.sampled_from(("imagesTr", "labelsTr")))
def test_a_damaged_image_or_label_map_is_read_or_named(data: st.DataObject, kind: str) -> None:
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sound = volume(folder, "uint8")
        suffix, content = data.draw(damaged_volumes(sound))
        for part in ("imagesTr", "labelsTr"):
            (folder / part).mkdir()
            for name in ("a1.nii", "a2.nii", f"damaged{suffix}"):
                whole = gzip.compress(sound) if name.endswith(".gz") else sound
                written(folder / part, name, content if part == kind and name.startswith("damaged") else whole)
        with judged("damaged"):
            assert load_nifti(folder, size=(3, 3, 3), cubes_per_class=1).size == (3, 3, 3)


@st.composite
def descriptions(draw: st.DrawFn) -> bytes:
    """A `dataset.json` with a damaged text, with any values, or nested deeper than a parser can follow."""
    sound = {"name": "Task", "labels": {"0": "background", "1": "front", "2": "back"}}
    values: dict[str, object] = {**sound, "labels": {"0": draw(json_values()), "1": "front"}}
    table: object = draw(
        st.sampled_from((sound, values, {**sound, "labels": draw(json_values())}, draw(json_values())))
    )
    text = json.dumps(table).encode()
    deep = st.sampled_from((b'{"labels":' * 10**5, b"[" * 10**6, b'{"labels": {"1": ' + b"9" * 10**5 + b"}}"))
    return draw(st.just(text) | damaged(text) | deep | st.just(text + b" " * 2**21))


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("described")
    for name in [f"{part}/{index}.nii" for part in ("imagesTr", "labelsTr") for index in range(3)]:
        (folder / name).parent.mkdir(exist_ok=True)
        written(folder, name, volume(folder, "uint8"))
    return folder


@FUZZED
@given(description=descriptions())
def test_a_damaged_description_is_read_or_named(description: bytes, task: Path) -> None:
    written(task, "dataset.json", description)
    with judged("dataset.json"):
        classes = load_nifti(task, size=(2, 2, 2), cubes_per_class=1).classes
        assert len(classes) == 3
        assert all(name.isprintable() for name in classes)
