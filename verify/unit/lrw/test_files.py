"""Files are written whole or not at all, whoever writes them."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lrw import files

TENSORS = {"a": torch.zeros(100)}


def by_torch(path: Path) -> None:
    with path.open("wb") as file:
        torch.save(TENSORS, file)


WRITERS: dict[str, Callable[[Path], object]] = {
    "python": lambda path: path.write_text("new"),
    "safetensors": lambda path: save_file(TENSORS, path),
    "torch": by_torch,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_what_is_written_takes_the_place_of_what_was_there(name: str, umask: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o600)
    before = os.umask(umask)
    try:
        with files.whole(path) as partial:
            WRITERS[name](partial)
            assert path.read_text() == "old"
    finally:
        os.umask(before)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() != b"old"
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("mine"), RuntimeError("mine too")])
def test_what_was_there_stays_where_writing_stops(error: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def stops(partial: Path) -> None:
        partial.write_text("half")
        raise error

    with pytest.raises(type(error)) as raised, files.whole(path) as partial:
        stops(partial)
    assert raised.value is error
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "old"


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / "gone" / "file"
    with pytest.raises(FileNotFoundError) as raised, files.whole(path) as partial:
        WRITERS[name](partial)
    assert raised.value.filename == str(path)


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_that_goes_meanwhile_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / "gone" / "file"
    path.parent.mkdir()

    def late(partial: Path) -> None:
        partial.unlink()
        path.parent.rmdir()
        WRITERS[name](partial)

    with pytest.raises(FileNotFoundError) as raised, files.whole(path) as partial:
        late(partial)
    assert raised.value.filename == str(path)


def test_what_was_begun_by_others_is_found(tmp_path: Path) -> None:
    path = tmp_path / "fi[l]e"
    with files.whole(path) as partial:
        assert files.partial_files(path) == [partial]
    (tmp_path / "fi[l]e.partial").write_text("mine")
    assert files.partial_files(path) == []
