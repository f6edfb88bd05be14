"""Where compiled kernels are kept: in a folder only this user may write to, or nowhere, which is said once."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lrw_kernels.codegen import store

Prepare = Callable[[Path], Path]
OTHER = 54_321  # a user nobody is
needs_root = pytest.mark.skipif(
    getattr(os, "geteuid", lambda: 1)() != 0, reason="gives files to another user, which root may"
)
pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="nothing is kept on this system")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(store, "_said", False)
    return chosen(tmp_path / "kernels", monkeypatch)


def chosen(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LRW_CACHE_DIR", str(path))
    return path


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_what_is_written_is_read(folder: Path) -> None:
    assert store.read("a.o") is None
    assert store.write("a.o", b"code") == folder
    assert store.read("a.o") == b"code"
    assert [path.name for path in folder.iterdir()] == ["a.o"]


@pytest.mark.parametrize("umask", [0, 0o002, 0o022])
def test_folders_and_files_are_private_under_every_umask(
    tmp_path: Path, umask: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = chosen(tmp_path / "new" / "kernels", monkeypatch)
    before = os.umask(umask)
    try:
        store.write("a.o", b"code")
    finally:
        os.umask(before)
    assert (mode(folder.parent), mode(folder), mode(folder / "a.o")) == (0o700, 0o700, 0o600)
    assert store.read("a.o") == b"code"


def others_may_write(folder: Path) -> str:
    folder.chmod(0o777)
    return f"others may write to {folder} (mode 0777)"


def the_group_may_write(folder: Path) -> str:
    folder.chmod(0o770)
    return f"others may write to {folder} (mode 0770)"


def sticky_is_not_private(folder: Path) -> str:
    folder.chmod(0o1777)
    return f"others may write to {folder} (mode 1777)"


def a_folder_above_is_shared(folder: Path) -> str:
    folder.parent.chmod(0o770)
    return f"others may write to {folder.parent} (mode 0770)"


def the_file_is_shared(folder: Path) -> str:
    (folder / "a.o").chmod(0o666)
    return f"others may write to {folder / 'a.o'} (mode 0666)"


def the_file_is_a_link(folder: Path) -> str:
    (folder / "a.o").rename(folder / "b.o")
    (folder / "a.o").symlink_to("b.o")
    return f"{folder / 'a.o'} cannot be written or read: "


@pytest.mark.parametrize(
    "spoil",
    [
        others_may_write,
        the_group_may_write,
        sticky_is_not_private,
        a_folder_above_is_shared,
        the_file_is_shared,
        the_file_is_a_link,
    ],
)
def test_what_others_could_have_written_is_not_read_and_that_is_said_once(
    folder: Path, spoil: Callable[[Path], str], capsys: pytest.CaptureFixture[str]
) -> None:
    store.write("a.o", b"code")
    expected = spoil(folder)
    assert store.read("a.o") is None
    assert store.read("a.o") is None
    said = capsys.readouterr().err
    assert said.startswith(f"lrw: kernels are not kept, {expected}")
    assert said.count("\n") == 1


@pytest.mark.parametrize("spoil", [others_may_write, the_group_may_write, a_folder_above_is_shared])
def test_nothing_is_written_where_others_may_write(folder: Path, spoil: Callable[[Path], str]) -> None:
    folder.mkdir(0o700)
    spoil(folder)
    assert store.write("a.o", b"code") is None
    assert list(folder.iterdir()) == []


def test_no_folder_is_made_below_a_shared_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o777)
    folder = chosen(tmp_path / "kernels", monkeypatch)
    assert store.write("a.o", b"code") is None
    assert not folder.exists()


def test_a_sticky_folder_above_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o1777)
    folder = chosen(tmp_path / "kernels", monkeypatch)
    assert store.write("a.o", b"code") == folder
    assert store.read("a.o") == b"code"


def folder_of_another(folder: Path) -> Path:
    os.chown(folder, OTHER, OTHER)
    return folder


def file_of_another(folder: Path) -> Path:
    os.chown(folder / "a.o", OTHER, OTHER)
    return folder / "a.o"


def home_of_another(folder: Path) -> Path:
    os.chown(folder.parent, OTHER, OTHER)
    return folder.parent


@needs_root
@pytest.mark.parametrize("give_away", [folder_of_another, file_of_another, home_of_another])
def test_root_runs_nothing_of_another_user(
    folder: Path, give_away: Prepare, capsys: pytest.CaptureFixture[str]
) -> None:
    store.write("a.o", b"code")
    given = give_away(folder)
    assert store.read("a.o") is None
    assert f"{given} belongs to user {OTHER}, this is user 0" in capsys.readouterr().err


def test_a_folder_of_another_user_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store.write("a.o", b"code")
    monkeypatch.setattr(os, "geteuid", lambda: OTHER)
    assert store.read("a.o") is None
    assert f"this is user {OTHER}" in capsys.readouterr().err


def test_a_link_of_ones_own_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir(0o700)
    (tmp_path / "links").mkdir(0o700)
    (tmp_path / "links" / "kernels").symlink_to("../real")
    chosen(tmp_path / "links" / "kernels", monkeypatch)
    assert store.write("a.o", b"code") == tmp_path / "real"
    assert store.read("a.o") == b"code"


def test_a_link_in_a_shared_folder_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others could lead it to any folder of this user's, a folder of downloads too."""
    (tmp_path / "real").mkdir(0o700)
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    (tmp_path / "shared" / "kernels").symlink_to(tmp_path / "real")
    (tmp_path / "mine").symlink_to("shared/kernels")
    for path in (tmp_path / "shared" / "kernels", tmp_path / "mine"):
        chosen(path, monkeypatch)
        assert store.write("a.o", b"code") is None
    assert list((tmp_path / "real").iterdir()) == []


@pytest.mark.timeout(10)
def test_links_in_a_circle_end(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.symlink_to(folder)
    assert store.write("a.o", b"code") is None
    assert f"{folder} cannot be written or read: " in capsys.readouterr().err


def test_damage_of_any_kind_is_nothing(folder: Path) -> None:
    store.write("a.o", b"code" * 9)
    store.write("b.o", b"other" * 9)
    path, whole = folder / "a.o", (folder / "a.o").read_bytes()
    damaged = [b"", whole[:40], whole[:-1], whole + b"!", whole[:50] + b"?" + whole[51:], (folder / "b.o").read_bytes()]
    for data in damaged:
        path.write_bytes(data)
        assert store.read("a.o") is None, data
    with path.open("r+b") as file:
        file.truncate(1 << 40)  # sparse: takes no room, but would take memory
    assert store.read("a.o") is None
    path.unlink()
    os.mkfifo(path, 0o600)
    assert store.read("a.o") is None


@pytest.mark.parametrize("home", [None, "file/home"])
def test_without_a_home_nothing_is_kept(
    folder: Path, home: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_home() -> Path:
        if home is None:
            raise RuntimeError("Could not determine home directory.")
        return folder / home

    monkeypatch.delenv("LRW_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    folder.mkdir(0o700)
    (folder / "file").touch()
    assert store.write("a.o", b"code") is None
    assert store.read("a.o") is None
    assert "kernels are not kept" in capsys.readouterr().err


def test_the_users_cache_folder_is_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LRW_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert store.write("a.o", b"code") == tmp_path / "xdg" / "lrw"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    assert store.write("a.o", b"code") == tmp_path / "home" / ".cache" / "lrw"


def test_where_owners_cannot_be_asked_nothing_is_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr(os, "geteuid")
    assert store.write("a.o", b"code") is None
    assert not folder.exists()
    assert "this system does not say whose a file is" in capsys.readouterr().err


def test_an_application_without_a_console_is_told_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.touch()
    monkeypatch.setattr(store.sys, "stderr", None)
    assert store.write("a.o", b"code") is None
