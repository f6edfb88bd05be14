"""The loop for people, machines and releases: `nox -l` lists the sessions, `nox -s NAME` runs one.

Requirements live in pyproject.toml (dependency groups and extras); constraints.txt pins the development torch. Set
LRW_NO_VENV=1 to run in the current environment instead of a fresh one.
"""

import os
from collections.abc import Sequence

import nox

PROJECT = nox.project.load_toml("pyproject.toml")
nox.options.default_venv_backend = "none" if os.environ.get("LRW_NO_VENV") else "virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "typecheck", "tests"]


CONSTRAINTS = ("--constraint", "constraints.txt")
OLDEST = ("torch==2.11.0", "triton==3.6.0", "numpy<2.4")  # that Triton's interpreter knows no later NumPy


def install(session: nox.Session, *groups: str, extras: str = "", versions: Sequence[str] = CONSTRAINTS) -> None:
    """The package, editable, with the given dependency groups, in these versions."""
    if session.virtualenv.venv_backend == "none":
        return
    requirements = nox.project.dependency_groups(PROJECT, *groups) if groups else ()
    package = f"-e.[{extras}]" if extras else "-e."
    session.install(*versions, package, *requirements)


@nox.session
def tests(session: nox.Session) -> None:
    """The tests that every change wants, property laws with their fixed profile among them; arguments after -- say
    others."""
    install(session, "test", extras="data,plot")
    run_tests(session, "not slow")


@nox.session
def tests_slow(session: nox.Session) -> None:
    """All others: whole jobs, processes that are killed, libraries under emulators, kernels for GPUs; arguments after
    -- say others."""
    install(session, "test", extras="data,plot")
    run_tests(session, "slow")
    if not session.posargs:
        interpreted(session)


def run_tests(session: nox.Session, marked: str) -> None:
    """Those that are `marked` so, by two processes, file after file, or what the arguments say.

    Threads that wait must not spin, since each process has as many as there are cores; nor need others compile beside
    them. A process that crashes ends the run: with another in its place pytest-xdist waits for ever.
    """
    processes = ("-n", "2", "--dist", "loadfile", "--max-worker-restart", "0")
    session.run(
        "pytest",
        *(session.posargs or ("verify", "-m", marked, *processes)),
        env={"OMP_WAIT_POLICY": "passive", "LRW_COMPILERS": "1"},
    )


def interpreted(session: nox.Session) -> None:
    """The GPU kernels' laws without a GPU: in Triton's interpreter, chosen before triton is imported.

    It is Python on one core: two processes take tests one by one, since some are a minute long.
    """
    files = ("verify/laws/test_layers.py", "verify/unit/triton/test_interpreted.py")
    processes = ("-n", "2", "--maxschedchunk", "1")
    session.run("pytest", *files, "-k", "triton", *processes, env={"TRITON_INTERPRET": "1"})


@nox.session
def oldest_triton(session: nox.Session) -> None:
    """The GPU kernels with the oldest Triton that is accepted, and the torch that GPU machines have beside it."""
    install(session, "test", versions=OLDEST)
    tests = ("triton/test_compiled", "triton/test_choices", "triton/test_backend", "lrw/test_ops")
    files = [f"verify/unit/{test}.py" for test in tests]
    session.run("pytest", *files)
    interpreted(session)


@nox.session
def verify(session: nox.Session) -> None:
    """The property laws; `nox -s verify -- --hypothesis-profile=nightly` draws 2,000 random examples of each."""
    install(session, "test", extras="data,plot")
    session.run("pytest", "verify/laws", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, import contracts, tests that assert something; of the source alone, without what it needs to run."""
    if session.virtualenv.venv_backend != "none":
        session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports", env={"PYTHONPATH": "kernels"})
    session.run("python", "-m", "verify.lint", "verify")


@nox.session
def typecheck(session: nox.Session) -> None:
    """mypy --strict on both packages."""
    install(session, "typecheck")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """The site, docs/_build/html, out of docs/ and the docstrings; warnings are errors."""
    install(session, "docs")
    session.run("sphinx-build", "-W", "--keep-going", "--fresh-env", "-b", "html", "docs", "docs/_build/html")


@nox.session
def compress(session: nox.Session) -> None:
    """The main job on the embedded data; arguments after -- go to `lrw compress`."""
    install(session, extras="data,plot")
    session.run("lrw", "compress", *session.posargs)


BENCHES = {"layers": "bench.cpu", "networks": "bench.networks", "overview": "bench.overview"}


@nox.session
def bench(session: nox.Session) -> None:
    """Layers, networks, pruned ones, training steps and start-up, in five minutes, onto one page for a browser;
    arguments after -- go to `python -m bench`, those behind a word of BENCHES to that bench alone."""
    install(session, "bench", "evidence", extras="plot,data")
    if session.virtualenv.venv_backend != "none":
        session.install("--no-deps", "torchvision==0.28.0")  # built for CUDA; it works beside torch for CPUs
    first = session.posargs[0] if session.posargs else ""
    rest = session.posargs[1:] if first in BENCHES else session.posargs
    session.run("python", "-m", BENCHES.get(first, "bench"), *rest)


@nox.session
def bench_arm(session: nox.Session) -> None:
    """Count and model what layers cost on ARM, beside other libraries; arguments after -- go to `bench.arm`."""
    install(session)
    session.run("python", "-m", "bench.arm", *session.posargs)


@nox.session
def bench_gpu(session: nox.Session) -> None:
    """Measure layers and a training step on an NVIDIA GPU beside cuDNN; arguments after -- go to `bench.gpu`."""
    install(session, extras="gpu")
    session.run("python", "-m", "bench.gpu", *session.posargs)


@nox.session
def evidence(session: nox.Session) -> None:
    """Train every method on real volumes and write docs/evidence.md; arguments after -- go to `bench.evidence`."""
    install(session, "evidence", extras="data,plot")
    session.run("python", "-m", "bench.evidence", *session.posargs)


@nox.session
def reliability(session: nox.Session) -> None:
    """Count how often lrw is wrong, for an hour and more; arguments after -- go to `bench.reliability`."""
    install(session, "test", extras="data,plot")
    session.run("python", "-m", "bench.reliability", *session.posargs)


@nox.session
def mutants(session: nox.Session) -> None:
    """Small faults in the sources, one at a time, and whether tests see them; arguments after -- go to
    `verify.mutants`."""
    install(session, "test", "mutants", extras="data,plot")
    session.run("python", "-m", "verify.mutants", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Lines that no test of `nox -s tests` runs, those of kernels that Numba compiles counted in Python."""
    install(session, "test", "coverage", extras="data,plot")
    options = ("--cov=lrw", "--cov=lrw_kernels", "--cov-append", "-q")
    session.run("coverage", "erase")
    session.run("pytest", "verify", "-m", "not slow", *options, "--cov-report=", env={"OMP_WAIT_POLICY": "passive"})
    reference = ("verify/laws/test_reference.py", "verify/laws/test_layers.py", "-k", "reference")
    session.run(
        "pytest", *reference, *options, "--cov-report=term-missing:skip-covered", env={"NUMBA_DISABLE_JIT": "1"}
    )


@nox.session
def build(session: nox.Session) -> None:
    """Build the wheel and check that it holds lrw and lrw_kernels and nothing else at the top."""
    session.install("build")
    session.run("python", "-m", "build", "--wheel", "--outdir", "dist")
    session.run("python", "-m", "verify.wheel", "dist")
