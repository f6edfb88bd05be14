"""Where LRW_REQUIRE_QEMU is set, tests fail without the emulator and the compilers, and skip without anything else."""

from pathlib import Path

import pytest

from verify.programs.exported import ARM, NATIVE, need


@pytest.mark.parametrize("tool", ["cmake", "llvm-mca-22", "g++", "setarch"])
@pytest.mark.parametrize("required", ["0", "1"])
def test_other_tools_may_be_missing(tool: str, required: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("LRW_REQUIRE_QEMU", required)
    with pytest.raises(pytest.skip.Exception, match=f"^missing: {tool.replace('+', '.')}$"):
        need(tool)


@pytest.mark.parametrize(
    ("tools", "target"),
    [(["cmake", "gcc"], None), (["qemu-aarch64"], None), (["aarch64-linux-gnu-gcc"], None), ([], ARM), ([], NATIVE)],
)
def test_the_emulator_and_compilers_may_not_be_missing_where_they_are_required(
    tools: list[str], target: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("LRW_REQUIRE_QEMU", "0")
    with pytest.raises(pytest.skip.Exception, match=r"^missing: .*(gcc|qemu)"):
        need(*tools, target=target)
    monkeypatch.setenv("LRW_REQUIRE_QEMU", "1")
    with pytest.raises(pytest.fail.Exception, match=r"LRW_REQUIRE_QEMU=1, but missing: .*(gcc|qemu)"):
        need(*tools, target=target)
