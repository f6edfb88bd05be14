"""What a job's folder holds: files of one run, whole, with the umask's modes, whatever happens meanwhile."""

import json
import os
import resource
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lrw import files
from lrw.job import state
from verify.unit.job.small import job

pytestmark = pytest.mark.slow

WRITTEN = {"checkpoint.pt", "compressed.safetensors", "dense.safetensors", "report.json"}
EXPORTED = ("lrw_c3d.json", "lrw_c3d.h", "lrw_c3d.weights", "liblrw_c3d.a", "lrw_threads.c", "CMakeLists.txt")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("job") / "run"
    assert job(folder) == 0
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A finished run with files of somebody else's among its own."""
    shutil.copy(finished.parent / "data.npz", tmp_path)
    out = Path(shutil.copytree(finished, tmp_path / "run"))
    (out / "export").mkdir()
    (out / "mine").mkdir()
    for name in ("notes.txt", "export/mine.c", "mine/report.json", "report.txt"):
        (out / name).write_text("mine")
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_a_finished_run_is_not_written_over(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(copied)
    assert job(copied, "--seed", "1") == 2
    line = said(capsys)
    for text in (str(copied), "finished run", "--resume", "--fresh"):
        assert text in line
    assert contents(copied) == before


@pytest.mark.parametrize("left", ["report.json", "dense.safetensors", "compressed.safetensors", "export/lrw_c3d.json"])
def test_what_is_left_without_a_checkpoint_is_not_written_over(
    left: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run" / left
    path.parent.mkdir(parents=True)
    path.write_text("before")
    assert job(tmp_path / "run") == 2
    assert f"holds {path.name} of an earlier run without its checkpoint" in said(capsys)
    assert contents(tmp_path / "run") == {left: b"before"}


def test_fresh_removes_all_of_the_run_before_it_writes_and_nothing_else(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*EXPORTED, "lrw_r3d18.json", "liblrw_r3d18.so"):
        (copied / "export" / name).write_text("old")
    (copied / ".report.json.0badcafe.partial").write_text("old")
    there: list[dict[str, bytes]] = []

    def stop(*_: object) -> None:
        there.append(contents(copied))
        raise KeyboardInterrupt

    monkeypatch.setattr(state, "write", stop)
    assert job(copied, "--fresh") == 130
    mine = ("notes.txt", "export/mine.c", "mine/report.json", "report.txt")
    assert there == [dict.fromkeys(mine, b"mine")]


def test_fresh_after_fresh_gives_one_run(copied: Path, finished: Path) -> None:
    assert job(copied, "--fresh", "--seed", "1") == 0
    report = json.loads((copied / "report.json").read_text())
    kept = state.read(copied)
    assert kept is not None
    assert (report["config"]["seed"], kept.config["seed"], kept.finished) == (1, 1, True)
    assert (report["accuracy"], report["history"]) == (kept.accuracy, kept.history)
    for name in ("dense.safetensors", "compressed.safetensors"):
        assert (copied / name).read_bytes() != (finished / name).read_bytes()


@pytest.mark.parametrize("flags", [["--tile", "9"], ["--data", "/nowhere.npz"], ["--weights", "/nowhere.pt"]])
def test_fresh_removes_nothing_for_a_run_that_is_refused(flags: list[str], copied: Path) -> None:
    before = contents(copied)
    assert job(copied, "--fresh", *flags) == 2
    assert contents(copied) == before


def test_fresh_does_not_remove_what_it_is_to_start_from(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(copied)
    weights = copied / "mine" / ".." / "dense.safetensors"
    assert job(copied, "--fresh", "--weights", str(weights)) == 2
    assert f"weights: {weights} is a file of the run that --fresh removes" in said(capsys)
    assert contents(copied) == before


@pytest.mark.parametrize("flag", ["--fresh", "--quiet"])
def test_a_library_that_no_job_made_is_refused_before_training(
    flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run" / "export").mkdir(parents=True)
    (tmp_path / "run" / "export" / "lrw_other.json").write_text("mine")
    assert job(tmp_path / "run", "--export", "network", flag) == 2
    assert "holds the library of another network (other); accepted is another --out" in said(capsys)
    assert contents(tmp_path / "run") == {"export/lrw_other.json": b"mine"}


@contextmanager
def full(name: str, times: int) -> Iterator[None]:
    """No room for the file `name` when it is written for the n-th time: the system itself refuses the bytes."""
    create, written, (soft, hard) = files._create, [0], resource.getrlimit(resource.RLIMIT_FSIZE)

    def limited(path: Path) -> int:
        mode = create(path)
        written[0] += path.name.startswith(f".{name}.")
        if written[0] == times:
            resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
        return mode

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_create", limited)
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("name", "times"),
    [
        ("checkpoint.pt", 1),
        ("checkpoint.pt", 2),
        ("checkpoint.pt", 4),
        ("dense.safetensors", 1),
        ("compressed.safetensors", 1),
        ("report.png", 1),
        ("report.json", 1),
    ],
)
def test_a_full_disk_is_said_in_a_line_and_the_run_can_go_on(
    name: str, times: int, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if name == "report.png":
        pytest.importorskip("matplotlib", reason="no figure without matplotlib")
    out = tmp_path / "run"
    shutil.copy(finished.parent / "data.npz", tmp_path)
    with full(name, times):
        assert job(out) == 1
    last = "the last checkpoint, if there is one yet, is whole: --resume goes on from it"
    assert said(capsys) == f"lrw compress: [Errno 27] File too large: '{out / name}'; {last}"
    assert set(contents(out)) <= {*WRITTEN, "report.png"}
    stands = state.read(out)
    assert (stands is None) == ((name, times) == ("checkpoint.pt", 1))
    assert job(out, *([] if stands is None else ["--resume"])) == 0
    reports = [json.loads((folder / "report.json").read_text()) for folder in (out, finished)]
    assert reports[0]["accuracy"] == reports[1]["accuracy"]
    assert reports[0]["history"] == reports[1]["history"]


def test_a_folder_that_is_removed_is_said_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write, out = state.write, tmp_path / "run"

    def removed(*arguments: object) -> None:
        if (out / "checkpoint.pt").exists():
            shutil.rmtree(out)
        write(*arguments)

    monkeypatch.setattr(state, "write", removed)
    assert job(out) == 2
    assert said(capsys) == f"lrw compress: [Errno 2] No such file or directory: '{out / 'checkpoint.pt'}'"
    assert not out.exists()


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_have_the_modes_that_the_umask_gives(umask: int, finished: Path, tmp_path: Path) -> None:
    shutil.copy(finished.parent / "data.npz", tmp_path)
    before = os.umask(umask)
    try:
        assert job(tmp_path / "run") == 0
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "run").iterdir()}
    assert modes == dict.fromkeys(modes, 0o666 & ~umask)
    assert set(modes) >= WRITTEN
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o777 & ~umask
