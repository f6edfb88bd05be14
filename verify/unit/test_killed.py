"""kill -9 at any moment: what was whole stays whole, and the next process goes on from it."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import lrw
from lrw_kernels.aot import Artifacts
from verify.unit.job.small import program

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}", "OMP_NUM_THREADS": "1"}
# A convolution of a shape of its own, with kernels that the folder has not got yet, held against torch's.
CONVOLVE = """
import sys, torch, lrw
from lrw.ops import winograd_conv3d
channels = int(sys.argv[1])
x, w = torch.randn(1, channels, 6, 7, 8), torch.randn(3, channels, 3, 3, 3)
y = winograd_conv3d(x, w, padding=1, tile=(2, 2, 4), backend="cpu")
torch.testing.assert_close(y, torch.nn.functional.conv3d(x, w, padding=1), rtol=1e-3, atol=1e-3)
print("right")
"""


def killed(work: Callable[[], None], after: float) -> None:
    """Do `work` again and again in a child, which is killed after so many seconds; it must not have failed before."""
    child = os.fork()
    if child == 0:
        try:
            while True:
                work()
        finally:
            os._exit(1)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the child failed by itself"


def moments(count: int, longest: float) -> Iterator[float]:
    """Seconds, drawn at random, always the same."""
    drawn = random.Random(0)
    for _ in range(count):
        yield drawn.uniform(0, longest)


def test_saving(tmp_path: Path) -> None:
    """The file is one network or the other, whole; what was begun beside it is hidden."""
    path = tmp_path / "net.safetensors"
    nets = [lrw.to_winograd(nn.Sequential(nn.Conv3d(4, 64, 3)), 2) for _ in range(2)]
    lrw.save(nets[0], path)

    def work() -> None:
        for net in nets:
            lrw.save(net, path)

    for moment in moments(25, 0.05):
        killed(work, moment)
        found = lrw.load(path, nn.Sequential(nn.Conv3d(4, 64, 3)))
        same = [torch.equal(found[0].weight, net[0].weight) for net in nets]  # type: ignore[index, union-attr]
        assert sum(same) == 1
    assert all(left == path or left.name.startswith(".") for left in tmp_path.iterdir())


def test_exporting(tmp_path: Path) -> None:
    """The library in the folder is one or the other, whole, or there is none."""
    x = torch.randn(1, 4, 5, 6, 7)
    nets = [nn.Sequential(nn.Conv3d(4, channels, 3, padding=1), nn.ReLU()) for channels in (3, 5)]

    def work() -> None:
        for net in nets:
            lrw.export(net, x, tmp_path, target="x86_64-linux-gnu")

    work()
    begin, manifest, whole = time.monotonic(), tmp_path / "lrw_net.json", 0
    work()
    for moment in moments(3, 1.5 * (time.monotonic() - begin)):
        killed(work, moment)
        if manifest.exists():
            made = Artifacts.load(manifest)  # which holds the weights against the manifest
            channels = made.outputs[0].size[-1]
            assert channels in (3, 5)
            whole += 1
    assert whole
    assert lrw.export(nets[0], x, tmp_path, target="x86_64-linux-gnu").manifest == manifest


def test_compiling(tmp_path: Path) -> None:
    """Whatever is in the folder of kernels then, the next process computes what it should."""
    environment = {**ENVIRONMENT, "LRW_CACHE_DIR": str(tmp_path)}
    for channels, moment in enumerate(moments(2, 6.0), 5):
        command = [sys.executable, "-c", CONVOLVE, str(channels)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
            time.sleep(moment)
            process.kill()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "right\n"), done.stderr


def test_the_job(tmp_path: Path) -> None:
    """Killed three times, it comes to the same network as one that nobody killed."""
    taken = list[float]()
    for how in ([], ["--fresh"]):  # the first one compiles kernels, and would say nothing of how long others take
        begin = time.monotonic()
        assert subprocess.run(program("", tmp_path / "whole", *how), env=ENVIRONMENT, check=False).returncode == 0
        taken.append(time.monotonic() - begin)
    folder, longest = tmp_path / "run", 0.8 * min(taken)
    for moment in moments(3, longest):
        how = ["--resume"] if (folder / "checkpoint.pt").exists() else ["--fresh"]
        with subprocess.Popen(program("", folder, *how), env=ENVIRONMENT, stderr=subprocess.DEVNULL) as process:
            time.sleep(moment)
            assert process.poll() is None, "it was done before it could be killed"
            process.kill()
    how = ["--resume"] if (folder / "checkpoint.pt").exists() else ["--fresh"]
    assert subprocess.run(program("", folder, *how), env=ENVIRONMENT, check=False).returncode == 0
    found, expected = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("run", "whole"))
    assert found["accuracy"] == expected["accuracy"]
    assert found["history"] == expected["history"]
    assert not [path for path in folder.iterdir() if "partial" in path.name]
