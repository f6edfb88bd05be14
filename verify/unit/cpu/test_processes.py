"""Kernels on disk, threads, forks: each in processes of its own, because they are about processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
LAYER = """
import sys, torch
torch.set_num_threads({threads})
torch.manual_seed(0)
from lrw.ops import winograd_conv3d
x, w = torch.randn(1, 20, 6, 7, 8), torch.randn(12, 20, 3, 3, 3)
def run():
    with torch.no_grad():
        return winograd_conv3d(x, w, padding=1, tile=2, backend="cpu")
expected = torch.nn.functional.conv3d(x, w, padding=1)
torch.testing.assert_close(run(), expected, rtol=1e-4, atol=1e-3)
"""


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that tests share which are not about it."""
    return tmp_path_factory.mktemp("kernels")


def run(script: str, cache: Path, *, threads: int = 1) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}", "LRW_CACHE_DIR": str(cache)}
    code = LAYER.format(threads=threads) + script
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def passed(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def test_a_second_process_compiles_nothing(tmp_path: Path) -> None:
    report = "print('numba' in sys.modules)"
    assert passed(run(report, tmp_path)) == "True"
    kernels = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(kernels) >= 4
    assert passed(run(report, tmp_path)) == "False", "what is on disk must do without Numba"
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == kernels


def test_a_damaged_kernel_is_compiled_again(tmp_path: Path) -> None:
    assert passed(run("", tmp_path)) == ""
    whole = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for path, data in whole.items():
        path.write_bytes(data[:-100])
    assert passed(run("", tmp_path)) == ""
    assert all(len(path.read_bytes()) > len(data) - 100 for path, data in whole.items())


def test_a_cache_that_cannot_be_written_is_said_and_survived(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run("", tmp_path / "file")
    passed(done)
    assert "cannot be written" in done.stderr


@pytest.mark.parametrize("threads", [1, 2])
def test_a_forked_child_computes_the_same(kernels: Path, threads: int) -> None:
    script = """
import os
before = run()
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(run(), before) else 7)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), torch.equal(run(), before))
"""
    assert passed(run(script, kernels, threads=threads)) == "0 True"


def test_eight_python_threads_at_once(kernels: Path) -> None:
    script = """
from concurrent.futures import ThreadPoolExecutor
expected = run()
other = torch.randn(2, 3, 5, 5, 5), torch.randn(7, 3, 3, 3, 3)
small = winograd_conv3d(*other, padding=1, backend="cpu")
def work(i):
    for _ in range(20):
        if not torch.equal(run(), expected): return False
        if not torch.equal(winograd_conv3d(*other, padding=1, backend="cpu"), small): return False
    return True
with ThreadPoolExecutor(8) as pool:
    print(all(pool.map(work, range(8))))
"""
    assert passed(run(script, kernels, threads=2)) == "True"


def test_results_do_not_depend_on_the_number_of_threads(kernels: Path) -> None:
    script = """
results = []
for n in (1, 2, 3):
    torch.set_num_threads(n)
    a, b = x.clone().requires_grad_(), w.clone().requires_grad_()
    y = winograd_conv3d(a, b, padding=1, backend="cpu")
    y.backward(torch.ones_like(y))
    results.append((y.detach(), a.grad, b.grad))
print(all(torch.equal(p, q) for r in results for p, q in zip(r, results[0])))
"""
    assert passed(run(script, kernels)) == "True"


def test_ten_thousand_calls_leak_nothing(kernels: Path) -> None:
    script = """
import gc, resource
from lrw_kernels.codegen.arena import ARENA
def many(n):
    for _ in range(n):
        with torch.no_grad():
            winograd_conv3d(x[:, :, :3], w.clone(), padding=1, tile=2, backend="cpu")
many(1000)
gc.collect()
held, peak = ARENA.held, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
many(9000)
gc.collect()
print(ARENA.held <= held, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak)
"""
    bounded, growth = passed(run(script, kernels)).split()
    assert bounded == "True"
    assert int(growth) < 8 << 10, f"{growth} KiB more after 9,000 calls"
