"""Check that a built wheel holds lrw and lrw_kernels and nothing else at the top: python -m verify.wheel FOLDER."""

import sys
import zipfile
from pathlib import Path


def main(folder: str) -> int:
    """Exit code 1, with the names, where the newest wheel in `folder` holds anything more or lacks a marker file."""
    wheel = max(Path(folder).glob("*.whl"), key=lambda path: path.stat().st_mtime)
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    missing = {"lrw/py.typed", "lrw_kernels/py.typed"} - set(names)
    if tops != {"lrw", "lrw_kernels"} or missing:
        print(f"{wheel.name}: top-level {sorted(tops)}, missing {sorted(missing)}")
        return 1
    print(f"{wheel.name}: {len(names)} files, only lrw and lrw_kernels")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
