"""`lrw` as a process among others: signals that come twice, pipes that nobody reads, a disk that takes nothing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lrw.job import state
from verify.unit.job.small import program

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}", "OMP_NUM_THREADS": "1"}
# An epoch after the first begins, and takes a second to put its things away.
SLOW = """
epoch, begun = lrw.job.pipeline.train_epoch, []
def slow(*given, **how):
    begun.append(1)
    if len(begun) == 1:
        return epoch(*given, **how)
    try:
        print("begun", flush=True)
        time.sleep(60)
    finally:
        print("leaving", flush=True)
        time.sleep(0.3)
        time.sleep(0.7)
        print("left", flush=True)
lrw.job.pipeline.train_epoch = slow
"""


def interrupted(folder: Path, presses: int) -> tuple[int, list[str], str]:
    """Exit code, lines of stdout and stderr of a job that Ctrl-C stops: once in training, then while it leaves."""
    command = program(SLOW, folder)
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": ENVIRONMENT}
    with subprocess.Popen(command, **piped) as process:  # type: ignore[call-overload]
        lines = []
        for line in process.stdout:
            lines.append(line.strip())
            process.send_signal(signal.SIGINT)
            if len(lines) == presses or lines[-1] == "leaving":
                break
        for _ in range(presses - len(lines)):
            while Path(f"/proc/{process.pid}/status").read_text().split("ShdPnd:\t")[1].split()[0].strip("0"):
                pass  # signals of one kind do not queue up
            process.send_signal(signal.SIGINT)
        rest, said = process.communicate(timeout=120)
    return process.returncode, [*lines, *rest.split()], said


@pytest.mark.skipif(sys.platform != "linux", reason="how many signals have arrived is read from /proc")
@pytest.mark.parametrize("presses", [1, 2, 3])
def test_ctrl_c_is_quiet_however_often_it_is_pressed(presses: int, tmp_path: Path) -> None:
    code, lines, said = interrupted(tmp_path / "run", presses)
    assert code == 130, said
    assert "Traceback" not in said
    if presses < 3:  # the third press ends what the first set going
        assert lines == ["begun", "leaving", "left"]
        assert said.splitlines()[-1].startswith("lrw compress: stopped; the last checkpoint")
    stopped = state.read(tmp_path / "run")
    assert stopped is not None
    assert (stopped.stage, stopped.epoch, stopped.finished) == (0, 1, False)


def printing(folder: Path, stdout: int, *flags: str) -> tuple[int, str]:
    """Exit code and stderr of a job that prints to the file descriptor `stdout`."""
    command = program("", folder, *flags)
    done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("flags", [["--json"], []])
def test_a_pipe_that_nobody_reads_is_quiet(flags: list[str], tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert printing(tmp_path / "run", writer, *flags) == (1, "")
    finally:
        os.close(writer)
    assert (tmp_path / "run" / "report.json").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_disk_that_takes_no_report_is_named(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        outcome = printing(tmp_path / "run", full.fileno(), "--json")
    assert outcome == (1, "lrw: standard output: No space left on device\n")
