"""The page of what was measured: what changed is told from noise, results of other commits, one file without others."""

import math
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from bench import networks
from bench.cpu import inference, training
from bench.layers import CPU
from bench.overview import command, history, page, sheet
from bench.overview.compare import ALIKE, FASTER, SLOWER, UNKNOWN, Timed, compare
from bench.rows import read

pytest.importorskip("matplotlib")
XEON = Path(sheet.RESULTS, "networks_xeon.csv")
needs_git = pytest.mark.skipif(
    shutil.which("git") is None or not (history.ROOT / ".git").exists(), reason="not in a checkout"
)
PEERS = {"one": 10.0, "two": 20.0, "three": 40.0, "four": 15.0}


def times(ours: dict[str, float], slower: float = 1.0, apart: float = 0.0, versions: str = "1") -> list[Timed]:
    """Each with all peers, `slower`, and in turns by `apart` more and less."""
    peers = {name: ms * slower * (1 + apart * (-1) ** i) for i, (name, ms) in enumerate(PEERS.items())}
    return [Timed(name, ms, peers, versions) for name, ms in ours.items()]


def test_what_changed_by_more_than_the_peers_did_is_told() -> None:
    before = times({"a": 10.0, "b": 10.0, "c": 10.0, "gone": 1.0})
    now = times({"a": 13.0, "b": 26.0, "c": 6.5, "new": 1.0}, slower=1.3, apart=0.01)
    found = compare(before, now)
    assert [change.name for change in found.changes] == ["a", "b", "c"]
    assert [change.verdict for change in found.changes] == [ALIKE, SLOWER, FASTER]
    assert [change.ratio for change in found.changes] == pytest.approx([1.0, 2.0, 0.5], rel=0.02)
    assert found.minutes == pytest.approx(0.3, rel=0.05)


def test_noise_hides_what_is_within_it() -> None:
    before, now = times({"a": 10.0}), times({"a": 8.0}, apart=0.2)
    assert compare(before, now).changes[0].verdict == ALIKE
    assert compare(before, times({"a": 8.0}, apart=0.01)).changes[0].verdict == FASTER
    # Two runs are never nearer than LEAST, however well the peers agree.
    assert compare(before, times({"a": 9.8})).changes[0].verdict == ALIKE


@pytest.mark.parametrize(("count", "peers", "verdict"), [(4, 12, FASTER), (40, 12, ALIKE), (4, 1, ALIKE)])
def test_one_of_many_and_one_beside_few_has_to_be_farther_apart(count: int, peers: int, verdict: str) -> None:
    def timed(first: float) -> list[Timed]:
        others = {str(i): 10.0 for i in range(peers)}
        return [Timed(str(i), first if i == 0 else 10.0, others, "") for i in range(count)]

    changes = compare(timed(10.0), timed(9.42)).changes
    assert [change.verdict for change in changes] == [verdict] + [ALIKE] * (count - 1)


def test_other_peers_tell_nothing() -> None:
    found = compare(times({"a": 10.0}), times({"a": 1.0}, versions="2"))
    assert found.changes[0].verdict == UNKNOWN
    assert (found.noise, found.minutes) == (None, None)
    assert math.isclose(found.changes[0].ratio, 0.1)
    assert compare([], times({"a": 1.0})).changes == ()


@needs_git
def test_results_of_a_commit_are_those_that_were_committed() -> None:
    head = history.resolved("HEAD")
    versions = history.versions(XEON)
    assert all(re.fullmatch(r"[0-9a-f]+", each.commit) for each in versions)
    assert versions, "the file is committed"
    rows = history.rows(networks.Row, XEON, head)
    assert [row.network for row in rows] == [row.network for row in history.rows(networks.Row, XEON, "HEAD")]
    assert rows
    assert history.rows(networks.Row, XEON.with_name("no_such.csv"), head) == []
    with pytest.raises(ValueError, match=r"^'no such' is no commit here$"):
        history.resolved("no such")


class Outside(HTMLParser):
    """What a page asks others for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect links that are not to the page itself."""
        self.tags.append(tag)
        links = [value for name, value in attrs if name in ("src", "href", "xlink:href") and value]
        self.asked += [link for link in links if not link.startswith("#")]


def test_the_page_needs_no_other_file_and_is_the_same_each_time(tmp_path: Path) -> None:
    for name in ("one.html", "two.html"):
        assert command.main(["--out", str(tmp_path / name)]) == 0
    text = (tmp_path / "one.html").read_text()
    assert text == (tmp_path / "two.html").read_text()
    outside = Outside()
    outside.feed(text)
    assert outside.asked == []
    assert {"script", "link", "img"}.isdisjoint(outside.tags)
    assert outside.tags.count("svg") >= 3
    for row in read(networks.Row, XEON):
        assert f"<td>{row.network}</td>" in text
        assert f"<td>{row.speedup:.2f}</td>" in text


def test_a_history_has_a_line_for_each_network() -> None:
    rows = read(networks.Row, XEON)
    faster = [replace(row, speedup=2 * row.speedup) for row in rows]
    (_, figure) = page.history_part("a machine", [("aaa", rows), ("nothing", []), ("bbb", faster)])
    assert "Networks at the commits" in figure
    assert page.history_part("a machine", [("aaa", rows)]) == [], "one commit is no history"


def test_changes_are_a_table_with_what_they_are_worth() -> None:
    found = compare(times({"a<b": 10.0}), times({"a<b": 5.0}, apart=0.01))
    _, table, foot = page.comparison_part("a machine", "abc", found)
    assert "<td>a&lt;b</td><td>10</td><td>5</td>" in table
    assert FASTER in table
    assert "Peers took" in foot
    unknown = compare(times({"a": 10.0}), times({"a": 5.0}, versions="2"))
    assert "too few" in page.comparison_part("a machine", "abc", unknown)[-1]
    assert "has no results" in page.comparison_part("a machine", "abc", compare([], []))[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--compare", "no such"], "argument --compare: 'no such' is no commit here"),
        (["--out", "/nowhere/page.html"], "accepted is a file in a folder that exists"),
        (["--comp", "HEAD"], "unrecognized arguments: --comp HEAD"),
    ],
)
def test_wrong_arguments_are_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(arguments)
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1


def test_committed_layers_have_the_names_that_a_run_gives_them() -> None:
    known = {layer.name for layer in CPU}
    layers = [row.case for found in sheet.committed(inference.Row, sheet.LAYERS).values() for row in found]
    steps = [row.case for found in sheet.committed(training.Row, sheet.TRAINING).values() for row in found]
    assert layers
    assert {*layers, *steps} <= known


@pytest.mark.parametrize(("things", "peers"), [(3, 1), (1, 3), (6, 3)])
def test_what_did_not_change_is_hardly_ever_called_changed(things: int, peers: int) -> None:
    """Times that differ by chance alone, by 3 %."""
    random = np.random.default_rng(things)

    def drawn() -> list[Timed]:
        times = 10 * np.exp(0.03 * random.standard_normal((things, 1 + peers)))
        others = [{str(j): ms for j, ms in enumerate(row[1:])} for row in times]
        return [Timed(str(i), row[0], other, "") for i, (row, other) in enumerate(zip(times, others, strict=True))]

    found = [compare(drawn(), drawn()).changes for _ in range(400)]
    called = sum(any(each.verdict in (FASTER, SLOWER) for each in changes) for changes in found)
    assert called <= 0.08 * len(found)
