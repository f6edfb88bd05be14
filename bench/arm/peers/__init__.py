"""The libraries ours is measured beside: MNN, ONNX Runtime and torch, as their aarch64 wheels, in an arm64 Debian root.

Nothing of them is committed: `install` fetches what the lists here pin, once, into the cache folder.
"""

import re
from pathlib import Path

import numpy as np

from bench.arm.data import convolved, values
from bench.arm.peers.install import LISTS, installed_root, installed_wheels
from bench.arm.peers.onnx_model import conv3d_model
from bench.arm.program import Program
from bench.layers import Layer

PEERS = ("mnn", "onnxruntime", "torch")
_GUEST = Path(__file__).with_name("guest.py")


def build(peer: str, layer: Layer, folder: Path) -> Program:
    """`layer` as `peer` computes it, with its files in `folder`; fetches what the cache lacks.

    Raises RuntimeError where the peer cannot be installed.
    """
    root, site = installed_root(), installed_wheels(peer)
    x, weight = values(layer)
    np.save(folder / "x.npy", x)
    np.save(folder / "w.npy", weight)
    (folder / "model.onnx").write_bytes(conv3d_model(layer, weight))
    environment = {
        "LD_LIBRARY_PATH": "/usr/lib/aarch64-linux-gnu:/lib/aarch64-linux-gnu",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONHOME": "/usr",
        "PYTHONPATH": str(site),
    }
    argv = (str(root / "usr/bin/python3.11"), str(_GUEST), peer)
    return Program(argv, folder, lambda: np.load(folder / "y.npy")[0], lambda: convolved(x, weight), root, environment)


def version(peer: str) -> str:
    """The pinned version: that of the first entry in the peer's list."""
    found = re.search(r"^\w+==(\S+)", (LISTS / f"{peer}.txt").read_text(), flags=re.M)
    assert found
    return found.group(1)
