"""The wall around parsers: whatever they raise names the file, in one line; what the user does passes."""

import zlib
from pathlib import Path

import pytest

from lrw.data import load_nifti, load_video
from lrw.data.parsing import parsing
from verify.unit.data.small import write_clips, write_decathlon

FOREIGN = [
    zlib.error("invalid code"),
    EOFError(),
    RecursionError("too deep"),
    MemoryError(),
    NotImplementedError("that compression"),
    RuntimeError("password required\nfor it"),
    OverflowError("too large"),
    PermissionError(1, "of no file"),
    FileNotFoundError(2, "of another file", "other.ts"),
]


@pytest.mark.parametrize("raised", FOREIGN, ids=lambda error: type(error).__name__)
def test_what_a_parser_raises_names_the_file(raised: Exception) -> None:
    reason = " ".join(str(raised).split()) or type(raised).__name__
    with pytest.raises(ValueError) as caught, parsing(Path("some/file.x"), "is no volume"):
        raise raised
    assert str(caught.value) == f"some/file.x is no volume: {reason}"
    assert caught.value.__cause__ is raised


def test_an_endless_reason_is_cut() -> None:
    with pytest.raises(ValueError, match=r"^x is no volume: a{300}\.\.\.$"), parsing(Path("x"), "is no volume"):
        raise ValueError("a" * 10**6)


def test_what_names_the_file_and_what_the_user_does_pass(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.x"), parsing(tmp_path / "absent.x", "is no volume"):
        (tmp_path / "absent.x").read_bytes()
    for passing in (KeyboardInterrupt, SystemExit):
        with pytest.raises(passing), parsing(tmp_path / "file.x", "is no volume"):
            raise passing


@pytest.mark.parametrize("raised", FOREIGN, ids=lambda error: type(error).__name__)
def test_in_a_folder_the_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception) -> None:
    import av
    import nibabel

    def fail(*_: object, **__: object) -> None:
        raise raised

    write_decathlon(tmp_path / "volumes", 3)
    write_clips(tmp_path / "clips")
    monkeypatch.setattr(nibabel, "io_orientation", fail)
    with pytest.raises(ValueError, match=r"imagesTr.v\d\.nii\.gz is not a readable NIfTI volume: "):
        load_nifti(tmp_path / "volumes", size=(2, 2, 2), cubes_per_class=1)
    monkeypatch.setattr(av, "open", fail)
    with pytest.raises(ValueError, match=r"blue.\d\.mp4 does not decode as a video: "):
        load_video(tmp_path / "clips", size=(2, 8, 8))
