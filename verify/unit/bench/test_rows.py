"""Rows of all benches: they come back as written, are on the disk at once, and say where they are from."""

import csv
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench import rows
from bench.layers import ARM, CPU, GPU, kept, select
from bench.rows import Writer, made, read
from lrw_kernels.winograd import Tile

STAMP = {"commit": "abc", "machine": "NVIDIA H200", "versions": "torch 2", "date": "2026-01-01"}


@dataclass(frozen=True)
class Row(rows.Row):
    name: str
    count: int | None = None
    ms: float | None = None


ONE, OTHER = Row("one", 3, 0.5), Row("other")


def written(path: Path, *what: Row, add: bool = False, stamp: dict[str, str] = STAMP) -> Path:
    with Writer(path, stamp, add=add) as writer:
        for row in what:
            writer.write(row)
    return path


def test_rows_come_back_as_written_with_their_certificate(tmp_path: Path) -> None:
    found = read(Row, written(tmp_path / "a.csv", ONE, OTHER))
    assert found == [ONE, OTHER]
    assert made(found) == ("commit abc | NVIDIA H200 | torch 2", "2026-01-01")
    assert [one.machine for one in rows.stamps(found)] == ["NVIDIA H200"]


def test_a_row_is_on_the_disk_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with Writer(path, STAMP) as writer:
        writer.write(ONE)
        assert read(Row, path) == [ONE]


def test_a_file_is_left_until_there_is_a_row_and_goes_on_where_it_should(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", ONE)
    assert read(Row, written(path)) == [ONE]
    assert read(Row, written(path, OTHER, add=True)) == [ONE, OTHER]
    assert read(Row, written(path, OTHER)) == [OTHER]
    assert read(Row, tmp_path / "none.csv") == []


def test_columns_of_an_older_file_stay_and_those_it_lacks_have_their_defaults(tmp_path: Path) -> None:
    path = tmp_path / "old.csv"
    path.write_text("name,ms,machine\nold,2.5,commit abc | some\n")
    found = read(Row, written(path, ONE, add=True))
    assert found == [Row("old", None, 2.5), Row("one", None, 0.5)]
    assert path.read_text().splitlines()[2] == "one,0.5,NVIDIA H200"
    assert made(found[:1]) == ("commit abc | some", "")


def test_what_cannot_be_written_is_refused_before_anything_is_measured() -> None:
    with pytest.raises(OSError, match="No such file"):
        Writer(Path("/proc/rows.csv"), STAMP)


def test_lines_of_other_rows_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("name,count\none,many\n")
    with pytest.raises(ValueError, match="many"):
        read(Row, path)
    path.write_text("count\n1\n")
    with pytest.raises(TypeError, match="name"):
        read(Row, path)


def test_numbers_are_written_to_five_digits(tmp_path: Path) -> None:
    with written(tmp_path / "a.csv", Row("pi", 314159265, 3.14159265)).open(newline="") as file:
        (line,) = csv.DictReader(file)
    assert (line["count"], line["ms"]) == ("314159265", "3.1416")


# Layers


def test_direct_multiply_adds_are_those_of_the_networks() -> None:
    by_name = {layer.name: layer.macs for layer in ARM}
    assert by_name["ref-32"] == 56_623_104
    assert by_name["ref-64"] == 693_633_024
    assert by_name["whole-c3d"] == 27 * 12544 * (
        16 * 3 * 64 + 4 * 64 * 128 + (128 + 256) * 256 // 2 + 512 * (256 + 512) // 16 + 512 * 512 // 64
    )


def test_layers_are_selected_by_the_beginnings_of_their_names() -> None:
    assert [layer.name for layer in select("c3d-3, ref-16", ARM)] == ["ref-16", "c3d-3a", "c3d-3b"]
    with pytest.raises(ValueError, match="'c4d' begins no layer's name; there are ref-16"):
        select("ref,c4d", ARM)
    assert {layer.batch for layer in (*ARM, *CPU)} == {1}
    assert {layer.batch for layer in GPU} == {16}


def test_a_share_of_the_columns_is_drawn_the_same_every_time() -> None:
    tile = Tile.of(4)
    assert kept(Tile.of(2), 1.0) == tuple(range(64))
    assert len(set(kept(tile, 0.25))) == 54
    assert kept(tile, 0.25) == kept(tile, 0.25)
