"""`lrw doctor` finds what is there, and says what is wrong or missing and what would change it."""

import json
import platform
from pathlib import Path

import pytest
import torch

from lrw.cli import main
from lrw.commands import doctor
from lrw.commands.doctor import MISSING, OK, WRONG, Finding
from lrw_kernels.codegen import machine, store


def found(what: str) -> Finding:
    return next(finding for finding in doctor.findings() if finding.what == what)


def test_a_machine_that_runs_tests_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    told = {each["what"]: each for each in json.loads(capsys.readouterr().out)}
    assert {told[what]["state"] for what in ("versions", "processor", "kernels", "cache", "a layer", "export")} == {OK}
    assert f"Python {platform.python_version()}" in told["versions"]["said"]
    assert f"torch uses {torch.get_num_threads()} threads" in told["processor"]["said"]
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines if not line.startswith(" ")] == list(told)


def test_wrong_numbers_are_an_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "winograd_conv3d", lambda x, w, padding: torch.full((1, 16, 8, 16, 16), torch.nan))
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "a layer wrong" in " ".join(out.split())
    assert "accepted is an error up to 0.0001: please report this" in out


def test_a_folder_of_others_is_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    monkeypatch.setenv("LRW_CACHE_DIR", str(tmp_path))
    finding = doctor._cache()
    assert finding.state == WRONG
    assert finding.said == f"kernels are compiled in every process: others may write to {tmp_path} (mode 0777)"
    assert "LRW_CACHE_DIR" in finding.advice
    tmp_path.chmod(0o700)
    assert doctor._cache().said.startswith(f"{store.folder()}: 0 files")


def test_other_processors_have_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise RuntimeError("no kernels for this processor: it has neither AVX2 with FMA nor NEON")

    monkeypatch.setattr(machine, "host", none)
    finding = doctor._kernels()
    assert (finding.state, finding.said) == (
        MISSING,
        "no kernels for this processor: it has neither AVX2 with FMA nor NEON",
    )


def test_what_is_not_installed_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor.EXTRAS, "plot", ("nosuch_package",))
    finding = next(each for each in doctor._extras() if each.what == "extra plot")
    assert finding == Finding("extra plot", MISSING, "without nosuch_package", "pip install 'lrw[plot]'")
    monkeypatch.setattr(
        "lrw_kernels.aot.missing_tools", lambda name: [] if name.startswith("x86") else ["qemu-aarch64"]
    )
    said = {each.what: each for each in doctor._export()}
    assert "aarch64" not in said["export"].said
    assert said["export to ARM"].said == "to run and check: qemu-aarch64"


def test_more_threads_than_cores_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert doctor._processor().state == WRONG
