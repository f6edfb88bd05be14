"""Weights of layers that a network's own methods read: `self.conv.weight` in a `forward`, beside what the layer does.

Another layer in that place has weights of another form: what reads them would fail, or silently mean something else.
"""

import ast
import inspect
from functools import lru_cache
from textwrap import dedent

from torch import nn

WEIGHT = "weight"


def read_weights(net: nn.Module) -> dict[str, str]:
    """Why layers of `net` must keep their weights: name -> which `forward` reads them.

    Looked for in the sources of classes, where there are any, from `forward` on through the methods that it calls.
    """
    reasons: dict[str, str] = {}
    for name, module in net.named_modules():
        for path in _read(type(module)):  # type: ignore[arg-type]  # classes are hashable
            layer = ".".join(filter(None, (name, path)))
            reasons.setdefault(layer, f"its weight is read by {type(module).__name__}.forward as well")
    return reasons


@lru_cache(maxsize=512)
def _read(kind: type) -> tuple[str, ...]:
    """The paths p of which forward of `kind` reads self.p.weight."""
    methods: dict[str, ast.AST] = {}
    for base in reversed(kind.__mro__):
        if base is nn.Module or not issubclass(base, nn.Module) or base.__module__.startswith("torch.nn."):
            continue
        try:
            (tree,) = ast.parse(dedent(inspect.getsource(base))).body
        except (OSError, TypeError, SyntaxError, ValueError):  # made at a prompt, or compiled
            continue
        methods |= {node.name: node for node in ast.iter_child_nodes(tree) if isinstance(node, ast.FunctionDef)}
    found, waiting, seen = dict[str, None](), ["forward"], set[str]()
    while waiting:
        method = waiting.pop()
        if method in seen or method not in methods:
            continue
        seen.add(method)
        for node in ast.walk(methods[method]):
            path = _path(node) if isinstance(node, ast.Attribute) else None
            if path is None:
                continue
            if len(path) == 1:
                waiting.append(path[0])  # a method, perhaps
            elif path[-1] == WEIGHT:
                found[".".join(path[:-1])] = None
    return tuple(found)


def _path(node: ast.expr) -> list[str] | None:
    """The names after self in self.a.b.c; None of anything else."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    return names if isinstance(node, ast.Name) and node.id == "self" else None
