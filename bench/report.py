"""Tables for the README, and docs/evidence.md, out of committed results: `python -m bench.report` writes them."""

import csv
import re
import sys
from pathlib import Path
from statistics import geometric_mean

from bench.evidence import claims, latency, page
from bench.evidence import rows as evidence

RESULTS = Path(__file__).parent / "results"
EVIDENCE, LATENCY = RESULTS / "evidence.csv", RESULTS / "evidence_latency.csv"
README = Path(__file__).parents[1] / "README.md"
DOCS = Path(__file__).parents[1] / "docs"
Rows = list[dict[str, str]]


def main() -> int:
    """Rewrite the README's tables and the page of evidence."""
    README.write_text(updated(README.read_text()))
    page.write(EVIDENCE, LATENCY, DOCS)
    return 0


def updated(text: str) -> str:
    """`text` with every `<!-- results: NAME -->` block made anew from results/NAME.csv."""

    def block(match: re.Match[str]) -> str:
        name = match.group(1)
        with (RESULTS / f"{name}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        return f"<!-- results: {name} -->\n{TABLES[name](rows)}\n<!-- end -->"

    return re.sub(r"<!-- results: (\w+) -->\n.*?<!-- end -->", block, text, flags=re.S)


def cpu_table(rows: Rows) -> str:
    """Speed-up over torch by layer and share of columns, and what products reach."""
    shares = sorted({row["share"] for row in rows}, key=float, reverse=True)
    lines = [
        "| layer | tile | torch ms | " + " | ".join(f"{float(s):.0%} of columns" for s in shares) + " | products |"
    ]
    lines.append("| --- | --- | --- | " + "--- | " * len(shares) + "--- |")
    for case in dict.fromkeys(row["case"] for row in rows):
        own = {row["share"]: row for row in rows if row["case"] == case}
        dense = own[shares[0]]
        gains = " | ".join(f"{float(own[s]['speedup']):.1f}x" for s in shares)
        lines.append(
            f"| {case} | {dense['tile']} | {dense['torch_ms']} | {gains} | {float(dense['of_peak']):.0%} of peak |"
        )
    means = " | ".join(f"{geometric_mean([float(r['speedup']) for r in rows if r['share'] == s]):.1f}x" for s in shares)
    lines.append(f"| geometric mean | | | {means} | |")
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


TABLES = {"cpu": cpu_table, "cpu_training": training_table, "evidence": evidence_table}

if __name__ == "__main__":
    sys.exit(main())
