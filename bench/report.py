"""Tables for README.md and docs/, and docs/evidence.md, out of committed results: `python -m bench.report`."""

import csv
import re
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import geometric_mean

from bench.arm import page as arm
from bench.evidence import claims, latency, page
from bench.evidence import rows as evidence
from bench.on_gpu import page as gpu
from lrw.trace.table import TABLE as OPERATORS
from lrw.trace.table import Function

RESULTS = Path(__file__).parent / "results"
EVIDENCE, LATENCY = RESULTS / "evidence.csv", RESULTS / "evidence_latency.csv"
README = Path(__file__).parents[1] / "README.md"
DOCS = Path(__file__).parents[1] / "docs"
PAGES = (README, DOCS / "arm.md", DOCS / "gpu.md")
Rows = list[dict[str, str]]


def main() -> int:
    """Rewrite the tables and the page of evidence."""
    for path in PAGES:
        path.write_text(updated(path.read_text()))
    page.write(EVIDENCE, LATENCY, DOCS)
    return 0


def updated(text: str) -> str:
    """`text` with every `<!-- results: NAME -->` block made anew."""

    def block(match: re.Match[str]) -> str:
        name = match.group(1)
        return f"<!-- results: {name} -->\n{TABLES[name]()}\n<!-- end -->"

    return re.sub(r"<!-- results: (\w+) -->\n.*?<!-- end -->", block, text, flags=re.S)


def read(name: str) -> Rows:
    """The rows of results/NAME.csv; none where there is no such file."""
    path = RESULTS / f"{name}.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def cpu_table(rows: Rows) -> str:
    """Speed-up over torch by layer and share of columns, and what products reach."""
    shares = sorted({row["share"] for row in rows}, key=float, reverse=True)
    lines = [
        f"| layer | tile | torch ms | {' | '.join(f'{float(s):.0%} of columns' for s in shares)} | products | digest |"
    ]
    lines.append("| --- | --- | --- | " + "--- | " * len(shares) + "--- | --- |")
    for case in dict.fromkeys(row["case"] for row in rows):
        own = {row["share"]: row for row in rows if row["case"] == case}
        dense = own[shares[0]]
        gains = " | ".join(f"{float(own[s]['speedup']):.1f}x" for s in shares)
        lines.append(
            f"| {case} | {dense['tile']} | {dense['torch_ms']} | {gains} | {float(dense['of_peak']):.0%} of peak "
            f"| {float(dense['digest_ms']) / float(dense['lrw_ms']):.0%} of the call |"
        )
    means = " | ".join(f"{geometric_mean([float(r['speedup']) for r in rows if r['share'] == s]):.1f}x" for s in shares)
    lines.append(f"| geometric mean | | | {means} | | |")
    return "\n".join([*lines, "", _certificate(rows)])


def evidence_table(rows: Rows) -> str:
    """The claims and their answers; `rows` are those of the committed table."""
    answered = claims.claims(evidence.read(EVIDENCE), latency.read(LATENCY))
    lines = [f"| {claim.text} | {claim.answer} |" for claim in answered]
    commits = ", ".join(dict.fromkeys(row["commit"] for row in rows))
    stamp = f"Small networks, {1 + max(int(row['seed']) for row in rows)} seeds at most; commits {commits}."
    return "\n".join(["| claim | |", "| --- | --- |", *lines, "", stamp])


def training_table(rows: Rows) -> str:
    """A training step by layer."""
    lines = ["| layer | tile | torch ms | lrw ms | |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        gain = f"{float(row['speedup']):.1f}x"
        lines.append(f"| {row['case']} | {row['tile']} | {row['torch_ms']} | {row['lrw_ms']} | {gain} |")
    lines.append(f"| geometric mean | | | | {geometric_mean([float(row['speedup']) for row in rows]):.1f}x |")
    return "\n".join([*lines, "", _certificate(rows)])


def _certificate(rows: Rows) -> str:
    return f"{rows[0]['machine']}, {rows[0]['date']}."


def operators_table() -> str:
    """torch's operators that can be exported, in the words of the functions that convert them."""
    by_function: dict[Function, list[str]] = {}
    for name, function in OPERATORS.items():
        by_function.setdefault(function, []).append(f"`{name.replace('::', '.')}`")
    texts = {function: (function.__doc__ or "").partition("\n\n")[0] for function in by_function}
    lines = [f"| {', '.join(names)} | {' '.join(texts[f].split())} |" for f, names in by_function.items()]
    return "\n".join(["| torch's operator | what is taken |", "| --- | --- |", *lines])


TABLES: dict[str, Callable[[], str]] = {
    "cpu": lambda: cpu_table(read("cpu")),
    "cpu_training": lambda: training_table(read("cpu_training")),
    "evidence": lambda: evidence_table(read("evidence")),
    "arm": lambda: arm.table(read("arm"), read("arm_peers")),
    "gpu": lambda: gpu.table(read("gpu")),
    "gpu_floors": lambda: gpu.floors(read("gpu")),
    "operators": operators_table,
}

if __name__ == "__main__":
    sys.exit(main())
