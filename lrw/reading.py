"""Weights of layers that a network's own methods read: `self.conv.weight` in a `forward`, beside what the layer does.

Another layer in that place has weights of another form: what reads them would fail, or silently mean something else.
"""

import ast
import inspect
from collections import defaultdict
from contextlib import suppress
from functools import lru_cache, reduce

from torch import fx, nn

WEIGHT = "weight"
FORM = ("dtype", "device", "requires_grad", "is_cuda", "layout")  # of a weight: U has the same
Path = tuple[str, ...]


def read_weights(net: nn.Module) -> dict[str, str]:
    """Why layers of `net` must keep their weights: name -> which `forward` reads them, as `self.name.weight`.

    Looked for in the sources of classes, where there are any, from `forward` on through the methods that it calls, and
    in the graphs of traced networks. What is read through a local variable is not seen.
    """
    names = {id(module): name for name, module in net.named_modules()}
    reasons: dict[str, str] = {}
    for module in net.modules():
        paths = _in_graph(module) if isinstance(module, fx.GraphModule) else _in_class(type(module))  # type: ignore[arg-type]
        for path in paths:
            with suppress(AttributeError):  # where the class reads what this one has not
                name = names.get(id(reduce(getattr, path, module)))
                if name is not None:
                    reasons.setdefault(name, f"its weight is read by {type(module).__name__}.forward as well")
    return reasons


def _in_graph(module: fx.GraphModule) -> list[Path]:
    targets = [str(node.target).split(".") for node in module.graph.nodes if node.op == "get_attr"]
    return [tuple(path[:-1]) for path in targets if path[-1] == WEIGHT]


@lru_cache(maxsize=512)
def _in_class(kind: type) -> tuple[Path, ...]:
    """The paths p of which forward of `kind` reads self.p.weight."""
    methods = defaultdict[str, list[ast.AST]](list)
    for base in kind.__mro__:
        if base is not object and base.__module__.split(".")[0] != "torch":
            for node in _body(base):
                if isinstance(node, ast.FunctionDef):
                    methods[node.name].append(node)
    found, waiting, seen = dict[Path, None](), ["forward"], set[str]()
    while waiting:
        method = waiting.pop()
        if method in seen:
            continue
        seen.add(method)
        nodes = [inner for own in methods.get(method, ()) for inner in ast.walk(own)]
        asked = {id(node.value) for node in nodes if isinstance(node, ast.Attribute) and node.attr in FORM}
        for path in (_path(node) for node in nodes if id(node) not in asked):
            if path is not None and len(path) == 1:
                waiting.append(path[0])  # a method, perhaps
            elif path is not None and path[-1] == WEIGHT:
                found[path[:-1]] = None
    return tuple(found)


def _body(kind: type) -> list[ast.stmt]:
    """The statements of a class; none where its source is not there: made at a prompt, or compiled."""
    try:
        (tree,) = ast.parse("if 1:\n " + inspect.getsource(kind).replace("\n", "\n ")).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return []
    (inner,) = tree.body  # type: ignore[attr-defined]
    return inner.body  # type: ignore[no-any-return]


def _path(node: ast.AST) -> Path | None:
    """The names after self in self.a.b.c, self.a[0].c; None of anything else."""
    names: list[str] = []
    while isinstance(node, ast.Attribute | ast.Subscript):
        if isinstance(node, ast.Attribute):
            names.insert(0, node.attr)
        elif isinstance(node.slice, ast.Constant):
            names.insert(0, str(node.slice.value))
        else:
            return None
        node = node.value
    return tuple(names) if isinstance(node, ast.Name) and node.id == "self" and names else None
