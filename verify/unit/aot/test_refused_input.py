"""What networks and `lrw.export` refuse: named, and nothing is written."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lrw.export import export
from lrw_kernels.aot import build_network
from lrw_kernels.network.graph import INPUT, Network, Node, Size
from lrw_kernels.network.operators import Copy

SIZE: Size = (1, 2, 3, 4, 5)


def node(name: str, *inputs: str) -> Node:
    return Node(name, Copy(), inputs or (INPUT,), SIZE)


@pytest.mark.parametrize("name", ["2d", "größe", "a\n", "", "a b", "a;b", None, 7])
def test_names_that_c_has_no_use_for_are_refused(tmp_path: Path, name: Any) -> None:
    with pytest.raises(ValueError, match=r"(?s)^name: .*; accepted are C identifiers"):
        build_network(Network.single(name, SIZE, (node("a"),)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "second"), [("threads", "lrw_threads.h"), ("THREADS", "lrw_threads.h"), ("BAD", "LRW_BAD_THREADS")]
)
def test_names_of_what_comes_with_every_library_are_refused(tmp_path: Path, name: str, second: str) -> None:
    with pytest.raises(ValueError, match=rf"^name: '{name}' would give a second {second}; accepted are other names$"):
        build_network(Network.single(name, SIZE, (node("a"),)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ((), "network: nothing is computed"),
        ((node("a", "b"), node("b")), "node a: its input 'b' is not computed before it"),
        ((node("a", "a"),), "node a: its input 'a' is not computed before it"),
        ((node("a"), node("a")), "node a: is there twice"),
        ((node(INPUT),), "node input: is there twice"),
    ],
)
def test_nodes_out_of_order_are_refused(nodes: tuple[Node, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        Network.single("net", SIZE, nodes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "mips"}, "target: 'mips' is not known; accepted are aarch64-linux-gnu, "),
        ({"threads": 0}, "threads: 0; accepted are integers from 1"),
        ({"threads": 257}, "threads: 257; accepted are integers from 1 to 256"),
        ({"threads": True}, "threads: True"),
        ({"threads": 1.5}, "threads: 1.5"),
        ({"name": "a-b"}, "name: 'a-b'"),
        ({"name": "a" * 201}, "name: 201 characters; accepted are up to 200"),
    ],
)
def test_export_refuses_and_writes_nothing(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        export(nn.Conv3d(1, 2, 3), torch.zeros(1, 1, 4, 4, 4), tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_export_names_the_operator_it_cannot_compile_and_writes_nothing(tmp_path: Path) -> None:
    class Sorts(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sort(dim=1)[0]

    with pytest.raises(ValueError, match="sort"):
        export(nn.Sequential(nn.Conv3d(1, 2, 3), Sorts()), torch.zeros(1, 1, 4, 4, 4), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
