"""Damaged and strange checkpoints and reports: taken for what they are, or refused with the file's name, in bounded
time and memory, with nothing in them run."""

import json
import os
import pickle
import resource
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from lrw import data
from lrw.commands.networks import Source, from_run
from lrw.job import JobConfig, state
from lrw.job.pipeline import Job, _resumable
from lrw.progress import Reporter
from verify.damage import damaged
from verify.unit.job.small import job

EXAMPLES = max(100, settings.default.max_examples)  # 100 in CI, 2,000 in nightly
SECONDS, BYTES = 20, 2**30
EXTREMES = (0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF)


class Command:
    """What pickle runs where it is let."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.sign),)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


JUNK: tuple[Any, ...] = (None, True, -1, 3, 2**70, 1e308, float("nan"), "", "x" * 10_000, [], {}, [None], {"": None})
JUNK += (nested(90), list(range(1000)), {str(n): n for n in range(100)})
TENSORS = (
    torch.zeros(3),
    torch.zeros(1).expand(10**10),
    torch.zeros(0, dtype=torch.complex64),
    torch.full((2,), float("nan")),
    torch.zeros(1, 1, 1, dtype=torch.bool),
    torch.zeros(3).to_sparse(),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("job") / "run"
    assert job(folder) == 0
    return folder


@contextmanager
def bounded() -> Iterator[None]:
    """At most so much more memory than now, and so much time."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages + BYTES, hard))
    start = process_time()
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert process_time() - start < SECONDS


def places(value: Any, found: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys to everything in nested lists and dictionaries."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*found, key)
        yield from places(inner, (*found, key))


def changed(value: Any, place: tuple[Any, ...], what: str, junk: Any) -> Any:
    """A copy with what is at `place` replaced or taken out, or with more beside it."""
    copy = dict(value) if isinstance(value, dict) else list(value)
    key = place[0]
    if len(place) > 1:
        copy[key] = changed(copy[key], place[1:], what, junk)
    elif what == "replace":
        copy[key] = junk
    elif what == "remove":
        del copy[key]
    elif isinstance(copy, dict):
        copy["more"] = junk
    else:
        copy.append(junk)
    return copy


@st.composite
def strange(draw: Callable[..., Any], value: Any, junk: tuple[Any, ...]) -> Any:
    """`value` with up to three of its parts changed; half of them near the top."""
    for _ in range(draw(st.integers(1, 3))):
        every = list(places(value))
        high = [place for place in every if len(place) <= 2]
        if not high:
            break
        of = high if draw(st.booleans()) else every
        place = of[draw(st.integers(0, len(of) - 1))]
        what = draw(st.sampled_from(("replace", "remove", "add")))
        value = changed(value, place, what, junk[draw(st.integers(0, len(junk) - 1))])
    return value


def resumed(folder: Path, config: JobConfig) -> Job | None:
    """The job that `--resume` would go on with; None where it is refused, in words that name the checkpoint."""
    volumes = data.load(config.data, seed=config.seed)
    path = folder / "checkpoint.pt"
    with bounded():
        try:
            known = _resumable(state.read(folder), config)
            return Job(config.of_data(volumes), volumes, Reporter(Console(), quiet=True), known)
        except ValueError as error:
            refusal = str(error)
    assert str(path) in refusal or f"; the run in {folder} was started with" in refusal
    assert_short(refusal)
    return None


def assert_short(refusal: str) -> None:
    assert len(refusal.splitlines()) == 1
    assert len(refusal) < 2000


@pytest.fixture(scope="module")
def checkpoint(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, JobConfig, dict[str, Any]]:
    """(a folder for strange checkpoints, the settings of a finished run, what its checkpoint holds)."""
    folder = tmp_path_factory.mktemp("strange")
    shutil.copy(finished / "checkpoint.pt", folder)
    stands = state.read(folder)
    assert stands is not None
    config = JobConfig(**{**stands.config, "out": str(folder)})  # type: ignore[arg-type]
    again = resumed(folder, config)
    assert again is not None
    for name, tensor in again.net.state_dict().items():
        torch.testing.assert_close(tensor, stands.model[name], rtol=0, atol=0)
    return folder, config, torch.load(folder / "checkpoint.pt", weights_only=True)


@settings(max_examples=EXAMPLES)
@given(draw=st.data())
def test_damaged_checkpoints_are_refused(draw: st.DataObject, finished: Path, checkpoint: tuple[Any, ...]) -> None:
    folder, config, _ = checkpoint
    whole = (finished / "checkpoint.pt").read_bytes()
    content = draw.draw(damaged(whole))
    (folder / "checkpoint.pt").write_bytes(content)
    again = resumed(folder, config)
    if again is not None:  # nothing that was changed can have been a value
        good = torch.load(finished / "checkpoint.pt", weights_only=True)["model"]
        for name, tensor in again.net.state_dict().items():
            torch.testing.assert_close(tensor, good[name], rtol=0, atol=0, equal_nan=True)


@settings(max_examples=EXAMPLES)
@given(draw=st.data())
def test_strange_checkpoints_are_refused(draw: st.DataObject, checkpoint: tuple[Any, ...]) -> None:
    folder, config, values = checkpoint
    torch.save(draw.draw(strange(values, (*JUNK, *TENSORS))), folder / "checkpoint.pt")
    again = resumed(folder, config)
    if again is not None:
        assert 0 <= again.state.stage < len(again.stages)
        assert [entry["stage"] for entry in again.state.history] == ["train", "train", "finetune", "retrain"]


@pytest.mark.parametrize("legacy", [False, True])
def test_a_checkpoint_that_would_run_something_runs_nothing(
    legacy: bool, tmp_path: Path, checkpoint: tuple[Any, ...]
) -> None:
    folder, config, values = checkpoint
    values = {**values, "version": Command(tmp_path / "run")}
    torch.save(values, folder / "checkpoint.pt", _use_new_zipfile_serialization=not legacy)
    assert resumed(folder, config) is None
    (folder / "checkpoint.pt").write_bytes(pickle.dumps(values))
    assert resumed(folder, config) is None
    assert not (tmp_path / "run").exists()
    pickle.loads(pickle.dumps(values))  # it would
    assert (tmp_path / "run").exists()


LARGE = b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x20\x85R."  # bytearray(2**37)


@pytest.mark.parametrize(
    ("pickled", "packing"), [(pickle.dumps(bytes(2**28)), zipfile.ZIP_DEFLATED), (LARGE, zipfile.ZIP_STORED)]
)
def test_a_checkpoint_that_says_it_is_large_takes_no_room(
    pickled: bytes, packing: int, checkpoint: tuple[Any, ...]
) -> None:
    folder, config, _ = checkpoint
    with zipfile.ZipFile(folder / "checkpoint.pt", "w", packing) as archive:
        for name, content in (("data.pkl", pickled), ("version", b"3\n"), ("byteorder", b"little")):
            archive.writestr(f"checkpoint/{name}", content)
    assert resumed(folder, config) is None


def named(folder: Path) -> tuple[Source, Path] | None:
    """The network that `lrw export` would take from a folder; None where it is refused, in words that name a file."""
    with bounded():
        try:
            return from_run(folder, Source())
        except ValueError as error:
            refusal = str(error)
    assert str(folder / "report.json") in refusal
    assert_short(refusal)
    return None


@pytest.fixture(scope="module")
def reported(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("reported")
    shutil.copy(finished / "compressed.safetensors", folder)
    shutil.copy(finished / "report.json", folder)
    assert named(folder) == (Source("c3d", 1, 2, 2, (8, 8, 8)), folder / "compressed.safetensors")
    return folder, (folder / "report.json").read_text()


def refused_or_right(folder: Path) -> bool:
    """Only the size of the input is not in the weights too, and may be another."""
    found = named(folder)
    return found is None or replace(found[0], size=(8, 8, 8)) == Source("c3d", 1, 2, 2, (8, 8, 8))


@settings(max_examples=EXAMPLES)
@given(draw=st.data())
def test_damaged_reports_are_refused(draw: st.DataObject, reported: tuple[Path, str]) -> None:
    folder, text = reported
    (folder / "report.json").write_bytes(draw.draw(damaged(text.encode())))
    assert refused_or_right(folder)


@settings(max_examples=EXAMPLES)
@given(draw=st.data())
def test_strange_reports_are_refused(draw: st.DataObject, reported: tuple[Path, str]) -> None:
    folder, text = reported
    values = json.loads(text)
    told = {key: values[key] for key in ("config", "data")} if draw.draw(st.booleans()) else values
    (folder / "report.json").write_text(json.dumps(draw.draw(strange(told, (*JUNK, 10**6, 2**16, 10**400)))))
    assert refused_or_right(folder)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"config": ' + "9" * 10_000 + "}", "\0" * 10, '"' + "x" * 2**24 + '"', "{}", "null", "[1]"]
)
def test_reports_that_stop_parsers_are_refused(text: str, reported: tuple[Path, str]) -> None:
    folder, _ = reported
    (folder / "report.json").write_text(text)
    assert named(folder) is None
