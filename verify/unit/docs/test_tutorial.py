"""The pages' Python: the tutorial runs from its first block to its last, blocks marked with `<!-- runs -->` run one by
one (`<!-- runs PACKAGE -->` where that is installed), all others compile. Their numbers are those of the code, and
every public name is in the reference."""

import ast
import os
import re
import subprocess
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch

import lrw
from bench.evidence import method, methods
from bench.evidence.settings import SMALL
from lrw import nets
from lrw.job.config import JobConfig
from lrw.job.training import WARM_UP
from lrw_kernels.aot import missing_tools
from verify.programs.exported import need

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[3] / "docs"
TUTORIAL = DOCS / "tutorial.md"
PAGES = [*sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("howto/*.md"))]
ARM = "aarch64-linux-gnu"

_FENCE = re.compile(r"(?:^<!-- (?P<mark>[^\n]*) -->\n+)?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.M | re.S)


class Block(NamedTuple):
    """A block of code in a page, the line before its first, and what the comment before it says."""

    page: Path
    line: int
    mark: str
    code: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(DOCS)}:{self.line}"

    @property
    def program(self) -> Any:
        """Compiled so that a traceback names the page and its line."""
        return compile("\n" * self.line + self.code, str(self.page), "exec")


def blocks(page: Path, language: str = "python") -> list[Block]:
    text = page.read_text()
    found = [match for match in _FENCE.finditer(text) if match["language"] == language]
    return [Block(page, text[: match.start("code")].count("\n"), match["mark"] or "", match["code"]) for match in found]


ALL = [block for page in PAGES for block in blocks(page)]


@pytest.mark.parametrize("block", ALL, ids=str)
def test_every_block_compiles(block: Block) -> None:
    assert ast.parse(block.code).body, f"{block}: an empty block"
    assert block.program is not None


@pytest.mark.parametrize("block", [block for block in ALL if block.mark.startswith("runs")], ids=str)
def test_blocks_that_say_so_run(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in block.mark.split()[1:]:
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "docs"}
    with mock.patch.dict(os.environ):
        exec(block.program, names)
    assert "lrw" in names, f"{block}: does not import lrw"


def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "tutorial"}
    for block in blocks(TUTORIAL):
        if block.mark != "needs qemu" or not missing_tools(ARM):
            exec(block.program, names)
    scores = [names["accuracy"](names[name])[0] for name in ("net", "fast", "student", "small", "loaded")]
    dense, fast, student, small, loaded = scores
    assert dense > 0.5  # it has learned: ten classes
    assert student > dense - 0.2
    assert (fast, small, loaded) == pytest.approx((dense, student, student), abs=0.011)  # a clip at most may flip
    assert names["pruner"].observations == 2 * 25  # each step of two epochs
    assert {layer.kept for layer in names["small"].report.layers} == {16}
    assert names["fast"].report.last == names["small_fast"].report.last == "the program"
    assert set(names["found"]) == {"torch", "fast", "small"}
    assert (tmp_path / "digits" / "input").stat().st_size == 4 * 6 * 16 * 16


def test_the_tutorials_program_for_the_pi_runs(tmp_path: Path) -> None:
    need("aarch64-linux-gnu-gcc", target=ARM)
    (code,) = (block.code for block in blocks(TUTORIAL, "c"))
    net, folder = nets.build("c3d", in_channels=1, classes=4, input_size=(4, 8, 8), width=2), tmp_path / "digits"
    built = lrw.export(net.eval(), torch.zeros(1, 1, 4, 8, 8), folder, target=ARM, name="digits", threads=2)
    (folder / "time.c").write_text(code)
    command = ["aarch64-linux-gnu-gcc", "-std=c99", "-Wall", "-Werror", "-static", "-O2", "-o", "digits_time", "time.c"]
    subprocess.run([*command, "lrw_threads.c", built.static.name, "-pthread"], cwd=folder, check=True)
    said = subprocess.run(["qemu-aarch64", "./digits_time"], cwd=folder, check=True, capture_output=True, text=True)
    assert re.fullmatch(r"median [\d.]+ ms, fastest [\d.]+, slowest [\d.]+\n", said.stdout)


def test_the_tutorials_numbers_are_those_of_the_code() -> None:
    text, config = TUTORIAL.read_text(), JobConfig()
    rows = [f"| `lrw compress`, default | {config.epochs} | {config.finetune_epochs} | {config.retrain_epochs} |"]
    for task, words in (("digits", "moving digits"), ("hippocampus", "hippocampus"), ("adrenal", "adrenal")):
        own = SMALL.stretches[task]
        rows.append(f"| `nox -s evidence`, {words} | {own.dense} | {own.score} | {own.retrain} |")
    assert [row for row in rows if row not in text] == []
    assert (config.learning_rate, config.rank, config.tile, config.distill) == (3e-3, 8, 2, 0)
    assert (methods.Fitted().rate, method.REST, methods.RANK, WARM_UP) == (3e-3, 3e-4, 8, 0.1)
    said = ('"lr": 3e-3', '"lr": 3e-4', "rank=8", "tile=2", "progress < 0.1", "100 steps")
    assert [words for words in said if words not in text] == []
    assert signature(lrw.PruningSchedule).parameters["score"].default == 100


def test_every_public_name_is_in_the_reference() -> None:
    pages = "\n".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    described = set(re.findall(r"^\.\. auto\w+:: (\S+)$", pages, re.M))
    layers = {"CompressedConv3d", "GroupedConv3d", "LowRankWinogradConv3d", "WinogradConv3d"}
    wanted = {f"lrw.nn.{name}" if name in layers else f"lrw.{name}" for name in lrw.__all__ if name != "__version__"}
    assert wanted - described == set()
