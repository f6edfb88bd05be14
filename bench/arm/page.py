"""Rows of this library and of its peers side by side, as a table of a page."""

from collections.abc import Sequence

CORES = ("a55", "n1", "x1")
NETWORK, NETWORK_LAYERS, WHOLE = "c3d", 8, "whole-c3d"
_HEAD = "| layer | library | columns | instructions | of MNN's | A55 | N1 | X1 | L2 misses | error |"
Rows = Sequence[dict[str, str]]


def table(ours: Rows, peers: Rows) -> str:
    """Markdown: each layer's rows, ours first, then all of C3D beside sums over its layers of whoever has all of them;
    what could not be had, and where the numbers come from, below. Either may be empty."""
    rows = [*ours, *peers]
    counted = [row for row in rows if row["per_mac"]]
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    groups = [[row for row in counted if row["layer"] == layer] for layer in layers if layer != WHOLE]
    whole = [row for row in counted if row["layer"] == WHOLE]
    lines = [line for group in [*groups, [*whole, *_sums(counted)]] for line in _lines(group)]
    notes = [] if ours else ["This library's own rows are not measured yet."]
    notes += [f"{row['layer']}, {_name(row)}: {row['note'].splitlines()[0]}." for row in rows if row["note"]]
    return "\n".join([_HEAD, "| --- " * _HEAD.count(" | ") + "| --- |", *lines, "", *notes, *_stamps(ours, peers)])


def _lines(group: Rows) -> list[str]:
    mnn = next((row["per_mac"] for row in group if row["library"] == "mnn"), "")
    titles = [_title(row) for row in group]
    return [
        _line(row, "" if title == before else title, mnn)
        for row, title, before in zip(group, titles, ["", *titles], strict=False)
    ]


def _line(row: dict[str, str], title: str, mnn: str) -> str:
    share = f"{float(row['per_mac']) / float(mnn):.0%}" if mnn else ""
    rates = [_number(row[f"mac_per_cycle_{core}"], ".2f") for core in CORES]
    l2 = f"{int(row['l2']) / 1e3:,.0f} k" if row["l2"] else ""
    cells = [title, _name(row), f"{float(row['share']):.0%}", _number(row["per_mac"], ".3f"), share, *rates, l2]
    return "| " + " | ".join([*cells, _number(row["error"], ".1e")]) + " |"


def _number(text: str, how: str) -> str:
    return format(float(text), how) if text else ""


def _title(row: dict[str, str]) -> str:
    return f"{row['layer']} {row['cin']}->{row['cout']} at {row['size']}" if row["cin"] else row["layer"]


def _name(row: dict[str, str]) -> str:
    return f"{row['library']} {row['version']}"


def _sums(counted: Rows) -> Rows:
    """A row for each library and share that has all of the network's layers; the largest of the errors."""
    kinds = dict.fromkeys((row["library"], row["share"]) for row in counted)
    sums = []
    for kind in kinds:
        own = [r for r in counted if (r["library"], r["share"]) == kind and r["layer"].startswith(f"{NETWORK}-")]
        if len(own) == NETWORK_LAYERS:
            sums.append(_sum(own))
    return sums


def _sum(rows: Rows) -> dict[str, str]:
    macs = sum(int(row["macs"]) for row in rows)
    rates = {}
    for rate in (f"mac_per_cycle_{core}" for core in CORES):
        cycles = [int(row["macs"]) / float(row[rate]) for row in rows if row[rate]]
        rates[rate] = str(macs / sum(cycles)) if len(cycles) == len(rows) else ""
    misses = [int(row["l2"]) for row in rows if row["l2"]]
    return {
        **rows[0],
        **rates,
        "layer": f"{NETWORK}, its {len(rows)} convolutions",
        "cin": "",
        "per_mac": str(sum(int(row["instructions"]) for row in rows) / macs),
        "l2": str(sum(misses)) if len(misses) == len(rows) else "",
        "error": max((row["error"] for row in rows if row["error"]), key=float, default=""),
    }


def _stamps(ours: Rows, peers: Rows) -> list[str]:
    return [f"{who}: {_stamp(rows)}." for who, rows in (("lrw", ours), ("Others", peers)) if rows]


def _stamp(rows: Rows) -> str:
    commits, dates = (", ".join(dict.fromkeys(row[key] for row in rows)) for key in ("commit", "date"))
    return f"commit {commits} | {rows[0]['versions']} | {dates}"
