"""load: the loader follows from what is there, arguments are passed on, and what is accepted is said."""

import sys
from pathlib import Path

import numpy as np
import pytest

from lrw.data import load, moving_digits
from verify.unit.data.small import identical, medmnist_arrays, write_clips, write_decathlon, write_nifti


def test_load_finds_the_loader_by_what_is_there(tmp_path: Path) -> None:
    np.savez(tmp_path / "toy.NPZ", **medmnist_arrays())
    (tmp_path / "toy.NPZ.npz").rename(tmp_path / "toy.npz")
    write_decathlon(tmp_path / "task")
    for index in range(3):
        write_nifti(tmp_path / "classes" / "a" / f"{index}.nii", np.ones((2, 2, 2), dtype=np.float32))
    write_clips(tmp_path / "clips")
    assert load(size=(4, 14, 14)).name == "digits"
    assert load(str(tmp_path / "toy.npz")).size == (4, 5, 6)
    assert load(tmp_path / "task").size == (32, 32, 32)
    assert load(tmp_path / "task", segmented=False).size == (24, 24, 24)
    assert load(tmp_path / "classes", size=(2, 3, 4)).size == (2, 3, 4)
    assert load(tmp_path / "clips", size=(2, 8, 10)).channels == 3


def test_load_passes_the_seed_on() -> None:
    assert identical(load(seed=5), moving_digits(seed=5))


def test_load_says_what_it_accepts(tmp_path: Path) -> None:
    accepted = r"accepted: 'digits', .*\.npz.*imagesTr.*\.mp4"
    with pytest.raises(FileNotFoundError, match=rf"no data at 'nowhere'; {accepted}"):
        load("nowhere")
    (tmp_path / "note.txt").write_text("text")
    for spec in (tmp_path, tmp_path / "note.txt"):
        with pytest.raises(ValueError, match="is no data this library reads; accepted: 'digits'"):
            load(spec)
    np.savez(tmp_path / "toy.npz", **medmnist_arrays())
    with pytest.raises(ValueError, match=r"size must be None or the arrays' own \(4, 5, 6\)"):
        load(tmp_path / "toy.npz", size=(28, 28, 28))


def test_a_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"needs scikit-learn, .* pip install 'lrw\[data\]'"):
        moving_digits()
