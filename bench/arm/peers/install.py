"""Fetch a peer's wheels and the arm64 system they run in, through pip and apt, into the cache folder."""

import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.arm.emulator import cache_folder
from bench.arm.tools import call, require

LISTS = Path(__file__).parent
ROOT_PACKAGES = ("python3.11", "libgomp1", "libstdc++6")  # Debian 12; apt adds what they depend on
_GLIBC = ("2_28", "2_27", "2_26", "2_17")
_PLATFORMS = ("manylinux2014_aarch64", *(f"manylinux_{version}_aarch64" for version in _GLIBC))
_TOOLS = ("apt-get", "dpkg-deb")
_LIMIT = 1800.0  # seconds, of one download
_failures: dict[Path, str] = {}


def installed_wheels(peer: str) -> Path:
    """The folder that holds the wheels of `peer`'s list, unpacked: the guest's PYTHONPATH.

    pip checks the digests. Raises RuntimeError with pip's words where it cannot install them.
    """
    wheels = LISTS / f"{peer}.txt"

    def fetch(draft: Path) -> None:
        python = ["--python-version=3.11", "--implementation=cp", "--abi=cp311", "--abi=abi3", "--abi=none"]
        platforms = [f"--platform={platform}" for platform in _PLATFORMS]
        options = ["--quiet", "--require-hashes", "--no-deps", "--no-compile", "--only-binary=:all:"]
        pip = [sys.executable, "-m", "pip", "install", *options, *python, *platforms]
        call([*pip, "--target", draft, "--requirement", wheels], limit=_LIMIT)

    return _once(_folder(peer, wheels.read_text()), fetch)


def installed_root() -> Path:
    """The folder of an arm64 Debian system with Python 3.11, enough for the emulator's -L.

    Raises RuntimeError where apt or dpkg is missing or the machine's apt sources do not have it.
    """
    target = _folder("root", " ".join(ROOT_PACKAGES))

    def fetch(draft: Path) -> None:
        with TemporaryDirectory(dir=target.parent) as state:
            for package in sorted(_downloaded(Path(state))):
                call(["dpkg-deb", "--extract", package, draft])

    if not target.exists():
        require(*_TOOLS)
    return _once(target, fetch)


def _downloaded(state: Path) -> Iterator[Path]:
    """Fetch the root's packages by apt with a private state folder, so that this machine's packages are untouched."""
    (state / "lists/partial").mkdir(parents=True)
    (state / "archives/partial").mkdir(parents=True)
    (state / "status").touch()
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Dir::Cache": state,
        "Debug::NoLocking": "true",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    # Without the setting an update that reaches no server is a success.
    call(["apt-get", "-q", *options, "-o", "APT::Update::Error-Mode=any", "update"], limit=_LIMIT)
    call(["apt-get", "-q", *options, "install", "--yes", "--download-only", *ROOT_PACKAGES], limit=_LIMIT)
    return (state / "archives").glob("*.deb")


def _once(target: Path, fetch: Callable[[Path], None]) -> Path:
    """`target`, which `fetch` fills where it is not there yet.

    Raises RuntimeError with the reason where that fails, and at once where it has failed in this process before: every
    layer asks for every peer.
    """
    if target in _failures:
        raise RuntimeError(_failures[target])
    if not target.exists():
        try:
            with _draft(target) as draft:
                fetch(draft)
        except RuntimeError as error:
            _failures[target] = f"{error} (it is fetched: is there a network?)"
            raise RuntimeError(_failures[target]) from error
    return target


@contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """A folder that becomes `target` only when all went well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent) as folder:
        draft = Path(folder, target.name)
        draft.mkdir()
        yield draft
        draft.rename(target)


def _folder(name: str, pinned: str) -> Path:
    return cache_folder() / "peers" / f"{name}-{hashlib.sha256(pinned.encode()).hexdigest()[:16]}"
