"""Tables for README.md and docs/, and docs/evidence.md, out of committed results and docstrings: `python -m
bench.report`."""

import ast
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import networks, page, reliability
from bench.arm import page as arm
from bench.cpu import inference, training
from bench.evidence import page as evidence
from bench.evidence.tables import Tables
from bench.gpu import page as gpu
from bench.rows import made, read
from lrw.trace.table import TABLE as OPERATORS
from lrw.trace.table import Function

RESULTS = Path(__file__).parent / "results"
EVIDENCE = Tables(RESULTS)
README = Path(__file__).parents[1] / "README.md"
DOCS = Path(__file__).parents[1] / "docs"
CITIZENS = Path(__file__).parents[1] / "verify" / "unit" / "lrw" / "test_citizens.py"
PAGES = (README, *(DOCS / f"{name}.md" for name in ("accelerate", "arm", "gpu", "pruning", "reliability")))


def main() -> int:
    """Rewrite the tables and the page of evidence."""
    for path in PAGES:
        path.write_text(updated(path.read_text()))
    evidence.write(EVIDENCE, DOCS)
    return 0


def updated(text: str) -> str:
    """`text` with every `<!-- results: NAME -->` block made anew."""

    def block(match: re.Match[str]) -> str:
        name = match.group(1)
        return "\n".join([f"<!-- results: {name} -->", *TABLES[name](), "<!-- end -->"])

    return re.sub(r"<!-- results: (\w+) -->\n.*?<!-- end -->", block, text, flags=re.S)


def evidence_table(make: Callable[[Tables], list[str]]) -> list[str]:
    """A table of the evidence, with what the rows were made of below."""
    return [*make(EVIDENCE), *(["", f"{', '.join(made(EVIDENCE.rows))}."] if EVIDENCE.rows else [])]


def _certified(bench: Any, name: str) -> list[str]:
    """A bench's table of the rows in results/NAME.csv, with what they were made of below."""
    rows = read(bench.Row, RESULTS / f"{name}.csv")
    return [*bench.table(rows), *(["", f"{', '.join(made(rows))}."] if rows else [])]


def networks_table() -> list[str]:
    """Whole networks on each machine they were measured on."""
    found = {of: read(networks.Row, RESULTS / f"networks_{of}.csv") for of in ("zen4", "xeon")}
    feet = [f"{', '.join(made(rows))}." for rows in found.values() if rows]
    return [*networks.beside(*found.values()), *(line for foot in feet for line in ("", foot))]


def operators_table() -> list[str]:
    """torch's operators that can be exported, in the words of the functions that convert them."""
    by_function: dict[Function, list[str]] = {}
    for name, function in OPERATORS.items():
        by_function.setdefault(function, []).append(f"`{name.replace('::', '.')}`")
    texts = {function: (function.__doc__ or "").partition("\n\n")[0] for function in by_function}
    lines = [(", ".join(names), " ".join(texts[function].split())) for function, names in by_function.items()]
    return page.table(("torch's operator", "what is taken"), lines)


def citizens_table() -> list[str]:
    """What accelerated networks are used with, in the words of the tests that use them so."""
    tests = [node for node in ast.parse(CITIZENS.read_text()).body if isinstance(node, ast.FunctionDef)]
    said = {test.name: ast.get_docstring(test) or "" for test in tests if test.name.startswith("test_")}
    lines = [(*text.rstrip(".").rpartition(": ")[::2], f"`{name}`") for name, text in said.items()]
    return page.table(("with", "what happens", "test"), lines)


TABLES: dict[str, Callable[[], list[str]]] = {
    "cpu": lambda: _certified(inference, "cpu"),
    "cpu_training": lambda: _certified(training, "cpu_training"),
    "networks_zen4": lambda: _certified(networks, "networks_zen4"),
    "networks_xeon": lambda: _certified(networks, "networks_xeon"),
    "networks": networks_table,
    "pruning": lambda: evidence_table(evidence.lost_table),
    "pruning_short": lambda: evidence_table(evidence.short_table),
    "evidence": lambda: evidence_table(evidence.claims_table),
    "arm": lambda: arm.table(*(read(arm.Row, RESULTS / f"{name}.csv") for name in ("arm", "arm_peers"))),
    "gpu": lambda: gpu.table(read(gpu.Row, RESULTS / "gpu.csv")),
    "gpu_floors": lambda: gpu.floors(read(gpu.Row, RESULTS / "gpu.csv")),
    "reliability": lambda: _certified(reliability, "reliability"),
    "operators": operators_table,
    "citizens": citizens_table,
}

if __name__ == "__main__":
    sys.exit(main())
