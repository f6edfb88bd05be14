"""What conversion, low rank, pruning, compression, loading and export refuse: named, and nothing is written."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import lrw
from lrw.nn import WinogradConv3d
from verify.unit.lrw.small_nets import small_net

X = torch.zeros(1, 1, 6, 6, 6)


def other_version(path: Path) -> Path:
    """The same file, claiming a later format."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    header["__metadata__"]["lrw"] = header["__metadata__"]["lrw"].replace('"format": 2', '"format": 9')
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])
    return path


def with_nan() -> nn.Module:
    net = small_net()
    net[0].weight.data[0, 0, 0, 0, 0] = float("nan")
    return net


def low_rank(rank: object, **options: object) -> Callable[[Path], object]:
    return lambda tmp: lrw.add_low_rank(lrw.to_winograd(small_net(), 2), rank, **options)  # type: ignore[arg-type]


def pruner_with(**options: object) -> Callable[[Path], object]:
    return lambda tmp: lrw.ColumnPruner(lrw.to_winograd(small_net(), 2), **options)  # type: ignore[arg-type]


def text_file(tmp: Path) -> Path:
    (tmp / "text").write_text("no tensors")
    return tmp / "text"


BAD: dict[str, Callable[[Path], object]] = {
    "0.weight: weights hold NaN": lambda tmp: lrw.to_winograd(with_nan()),
    "net: no layer to convert": lambda tmp: lrw.to_winograd(nn.Linear(2, 2)),
    "tile: 0 outputs": lambda tmp: lrw.to_winograd(small_net(), 0),
    "rank of '0': 65; accepted are whole numbers from 1 to 64": low_rank({"0": 65}),
    "rank of '0': 0; accepted are whole numbers from 1 to 64": low_rank(0),
    "rank: names 'nine'": low_rank({"nine": 3}),
    "init: 'svd'": low_rank(3, init="svd"),
    "net: holds no WinogradConv3d": lambda tmp: lrw.add_low_rank(small_net()),
    "sparsity: 1.0; accepted is a share": pruner_with(sparsity=1.0),
    "sparsity: -0.1": pruner_with(sparsity=-0.1),
    "score: 'l1'; accepted are product": pruner_with(score="l1"),
    "scope: 'net'": pruner_with(scope="net"),
    "stages: 0": pruner_with(stages=0),
    "decay: 0": pruner_with(decay=0),
    "example_input: scope 'multiplies'": pruner_with(scope="multiplies"),
    "net: holds no Winograd layer": lambda tmp: lrw.compress(small_net()),
    "conv: stride (2, 2, 2)": lambda tmp: WinogradConv3d.from_conv3d(nn.Conv3d(1, 1, 3, stride=2)),
    "in_channels: 0": lambda tmp: WinogradConv3d(0, 1, 3),
    "is no safetensors file": lambda tmp: lrw.load(text_file(tmp), small_net()),
    "has format 9; this version reads format 1": lambda tmp: lrw.load(
        other_version(lrw.save(lrw.to_winograd(small_net()), tmp / "a")), small_net()
    ),
    "skeleton: has no layer '0'": lambda tmp: lrw.load(
        lrw.save(lrw.to_winograd(small_net()), tmp / "a"), nn.Linear(1, 1)
    ),
    "net: a int; accepted is a torch network": lambda tmp: lrw.export(3, X, tmp),  # type: ignore[arg-type]
    "threads: 0; accepted are integers from 1": lambda tmp: lrw.export(small_net(), X, tmp, threads=0),
    "target: 'riscv64' is not known": lambda tmp: lrw.export(small_net(), X, tmp, target="riscv64"),
    "aten.log_sigmoid at 'log_sigmoid'": lambda tmp: lrw.export(nn.LogSigmoid(), X, tmp),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_named_and_nothing_is_written(message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        BAD[message](tmp_path)
    assert message in str(caught.value)
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".partial")]
