"""Other programs: found by name or missed with the name of their Debian package, run with their last words kept."""

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

PACKAGES = {
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu",
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
    "gcc": "gcc",
    "llvm-mc-22": "llvm-22",
    "llvm-mca-22": "llvm-22",
    "qemu-aarch64": "qemu-user",
}
_MESSAGE_LINES = 4


def require(*names: str) -> None:
    """Raise RuntimeError naming those of the programs that are not on PATH, with their packages."""
    lacking = [name for name in names if shutil.which(name) is None]
    if lacking:
        packages = " ".join(sorted({PACKAGES.get(name, name) for name in lacking}))
        raise RuntimeError(f"missing: {', '.join(lacking)} (Debian: apt-get install {packages})")


def call(
    command: Sequence[str | Path],
    *,
    folder: Path | None = None,
    text: str | None = None,
    environment: Mapping[str, str] | None = None,
    limit: float | None = None,
) -> str:
    """Standard output of `command`, run in `folder` with `text` as its input, for at most `limit` seconds.

    Raises RuntimeError where it is not there, fails, or takes longer.
    """
    name = Path(command[0]).name
    require(str(command[0]))
    try:
        done = subprocess.run(
            list(command), cwd=folder, input=text, env=environment, timeout=limit, capture_output=True, text=True
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{name} took more than {limit:.0f} s") from None
    if done.returncode != 0:
        words = " | ".join((done.stdout + done.stderr).strip().splitlines()[-_MESSAGE_LINES:])
        raise RuntimeError(f"{name} gave exit status {done.returncode}: {words}")
    return done.stdout
