"""What the loader is given: whole objects of this machine, under names that say what they depend on."""

import importlib.metadata
import mmap
from collections.abc import Callable
from pathlib import Path
from struct import pack_into

import pytest
from llvmlite import binding

from lrw_kernels.codegen import compiled, store, threads, versions
from lrw_kernels.codegen.check import is_own_object
from lrw_kernels.codegen.compile import ENTRY, llvm

pytestmark = pytest.mark.skipif(
    not compiled._empty_object().startswith((b"\x7fELF", b"\xcf\xfa\xed\xfe")), reason="objects of another form"
)
TYPE, MACHINE = 16, 18  # where an ELF header has them


def object_of(text: str, target: str | None = None) -> bytes:
    """What LLVM makes of a module for this machine, or for a triple."""
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    machine = llvm()[1] if target is None else binding.Target.from_triple(target).create_target_machine(reloc="pic")
    return machine.emit_object(binding.parse_assembly(text))


def is_own(data: bytes) -> bool:
    return is_own_object(data, compiled._empty_object(), ENTRY)


KERNEL = f"define void @{ENTRY}(i64 %a) {{\n  ret void\n}}\n"
OTHER_MACHINE = (
    "x86_64-unknown-linux-gnu" if binding.get_process_triple().startswith("aarch64") else "aarch64-linux-gnu"
)


def test_an_object_of_this_machine_with_the_entry_is_one() -> None:
    assert is_own(object_of(KERNEL))
    calls = f"declare ptr @memset(ptr, i32, i64)\ndefine void @{ENTRY}(ptr %p) {{\n"
    assert is_own(object_of(calls + "  %x = call ptr @memset(ptr %p, i32 0, i64 9)\n  ret void\n}\n"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        KERNEL.replace(ENTRY, "other"),
        KERNEL.replace("define", "define internal"),
        KERNEL.replace("  ret", "  call void @system()\n  ret") + "declare void @system()\n",
    ],
    ids=["empty", "another name", "hidden", "needs another function"],
)
def test_an_object_without_the_entry_or_with_needs_is_none(text: str) -> None:
    assert not is_own(object_of(text))


@pytest.mark.parametrize("target", [OTHER_MACHINE, "i686-linux-gnu", "arm64-apple-ios", "x86_64-pc-windows-msvc"])
def test_an_object_of_another_machine_is_none(target: str) -> None:
    assert not is_own(object_of(KERNEL, target))


@pytest.mark.skipif(not compiled._empty_object().startswith(b"\x7fELF"), reason="about ELF's header")
@pytest.mark.parametrize(("at", "value"), [(TYPE, 2), (TYPE, 3), (MACHINE, 243), (MACHINE, 0)])
def test_programs_libraries_and_unknown_machines_are_none(at: int, value: int) -> None:
    data = bytearray(object_of(KERNEL))
    pack_into("<H", data, at, value)
    assert not is_own(bytes(data))


def test_what_was_cut_off_anywhere_is_none() -> None:
    data = object_of(KERNEL)
    assert not any(is_own(data[:size]) for size in range(len(data)))


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"MZ" * 99, bytes(4096), b"\xcf\xfa\xed\xfe" * 64])
def test_garbage_is_none(data: bytes) -> None:
    assert not is_own(data)
    head = compiled._empty_object()[:64]
    assert not is_own(head + data)


@pytest.fixture
def recompiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[bytes, int]]:
    """compiled._object of a name, and how many times it was compiled; an empty folder at first."""
    counts: dict[str, int] = {}

    def compile_object(make: Callable[[], object], arguments: object) -> bytes:
        counts[""] = counts.get("", 0) + 1
        return object_of(KERNEL)

    def found(name: str) -> tuple[bytes, int]:
        counts.clear()
        data = compiled._object(name, ("int64",), lambda: print)
        return data, counts.get("", 0)

    monkeypatch.setenv("LRW_CACHE_DIR", str(tmp_path / "kernels"))
    monkeypatch.setattr(compiled, "compile_object", compile_object)
    monkeypatch.setattr(store, "_said", False)
    return found


def test_what_is_kept_is_compiled_once(recompiled: Callable[[str], tuple[bytes, int]]) -> None:
    assert recompiled("a") == (object_of(KERNEL), 1)
    assert recompiled("a") == (object_of(KERNEL), 0)
    assert recompiled("b") == (object_of(KERNEL), 1)


@pytest.mark.parametrize(
    "garbage", [b"", b"garbage", object_of(""), object_of(KERNEL, OTHER_MACHINE), object_of(KERNEL)[:-9]]
)
def test_garbage_with_a_right_checksum_is_compiled_anew(
    garbage: bytes, recompiled: Callable[[str], tuple[bytes, int]]
) -> None:
    recompiled("a")
    file = compiled._file("a")
    assert file is not None
    store.write(file, garbage)
    assert store.read(file) == garbage
    assert recompiled("a") == (object_of(KERNEL), 1)
    assert recompiled("a") == (object_of(KERNEL), 0)


def test_a_package_without_metadata_says_its_version_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    import numba

    def missing(package: str) -> str:
        raise importlib.metadata.PackageNotFoundError(package)

    named = compiled._file("a")
    monkeypatch.setattr(versions, "version", missing)
    assert versions.package_version("numba") == numba.__version__
    compiled._environment.cache_clear()
    assert compiled._file("a") == named


def test_without_sources_to_know_them_by_kernels_are_not_kept(
    tmp_path: Path,
    recompiled: Callable[[str], tuple[bytes, int]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(compiled, "_SOURCES", ("frozen",))
    compiled._environment.cache_clear()
    try:
        assert [recompiled("a")[1], recompiled("a")[1]] == [1, 1]
    finally:
        compiled._environment.cache_clear()
    assert not (tmp_path / "kernels").exists()
    said = capsys.readouterr().err
    assert said == "lrw: kernels are not kept, their sources, by which later runs would know them, are not here\n"


def test_a_file_that_is_only_mapped_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "libgomp-planted.so.1"
    path.write_bytes(bytes(mmap.PAGESIZE))
    before = [library._handle for library in threads._loaded()]
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ):
        assert [library._handle for library in threads._loaded()] == before
