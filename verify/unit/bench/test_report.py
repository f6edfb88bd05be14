"""The tables of the pages are made of the committed results, all of them."""

import re
import subprocess
import sys
from pathlib import Path

from bench import report
from bench.cpu import inference
from bench.rows import read
from lrw.trace.table import TABLE


def test_the_tables_of_the_pages_are_those_of_the_committed_results() -> None:
    texts = [path.read_text() for path in report.PAGES]
    assert [report.updated(text) for text in texts] == texts
    assert set(re.findall("<!-- results: (.*?) -->", "".join(texts))) == report.TABLES.keys()


def test_results_of_a_second_machine_are_read_too() -> None:
    found = read(inference.Row, report.RESULTS / "cpu_zen4.csv")
    assert len(inference.table(found)) == 2 + len({row.case for row in found}) + 1


def test_every_operator_that_can_be_exported_is_in_the_documents_with_a_word_on_it() -> None:
    rows = [line.split(" | ") for line in report.operators_table()[2:]]
    named = [name for names, _ in rows for name in names.removeprefix("| ").split(", ")]
    assert sorted(named) == sorted(f"`{name.replace('::', '.')}`" for name in TABLE)
    assert all(len(text) > 10 for _, text in rows)


def test_every_citizen_is_said_to_be_with_something_that_happens() -> None:
    rows = [line.strip("| ").split(" | ") for line in report.citizens_table()[2:]]
    assert len(rows) > 20
    assert all(len(row) == 3 and min(map(len, row)) > 5 for row in rows)


def test_pages_and_the_gpu_s_command_need_no_triton_to_be_imported() -> None:
    script = "import sys; sys.modules['triton'] = None; import bench.report, bench.gpu.command"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_files_of_the_benches_import_in_no_circle() -> None:
    folder = Path(report.__file__).parent
    files = {".".join(path.relative_to(folder.parent).with_suffix("").parts): path for path in folder.rglob("*.py")}
    left = {name: {other for other in files if other != name and _imports(path, other)} for name, path in files.items()}
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            del left[name]
    assert left == {}


def _imports(path: Path, other: str) -> bool:
    package, _, name = other.rpartition(".")
    lines = [line.strip() for line in path.read_text().splitlines() if "import" in line]
    named = [line.partition(" import ")[2].replace(",", " ").split() for line in lines
             if line.startswith(f"from {package} import ")]  # fmt: skip
    return any(line.startswith(f"from {other} import ") for line in lines) or any(name in names for names in named)
