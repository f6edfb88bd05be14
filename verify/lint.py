"""Lint for tests: python -m verify.lint FOLDER. Rejects

- a test that asserts nothing (no assert, no raises/warns/fail, no call to an assert* helper or a torch *check)
- a comparison, or a call that compares (allclose, equal, all, ...), whose result nobody reads
- a skip or xfail without a reason, or with an empty one
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

_ASSERTING = ("raises", "warns", "fail", "gradcheck", "gradgradcheck", "opcheck")
_COMPARING = ("allclose", "equal", "array_equal", "isclose", "all", "any")


def findings(source: str) -> Iterator[tuple[int, str]]:
    """(line, complaint) for one test file."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            if not _asserts(node):
                yield node.lineno, f"{node.name} asserts nothing"
        elif isinstance(node, ast.Expr) and _compares(node.value):
            yield node.lineno, "comparison whose result nobody reads"
        elif isinstance(node, ast.Call) and _name(node.func) in ("skip", "skipif", "xfail") and not _has_reason(node):
            yield node.lineno, f"{_name(node.func)} without a reason"
        elif isinstance(node, ast.Attribute) and node.attr in ("skip", "xfail") and _is_bare_mark(node, tree):
            yield node.lineno, f"{node.attr} without a reason"


def _asserts(test: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(
        isinstance(node, ast.Assert) or (isinstance(node, ast.Call) and _is_asserting(_name(node.func)))
        for node in ast.walk(test)
    )


def _is_asserting(name: str) -> bool:
    return name.lstrip("_").startswith("assert") or name in _ASSERTING


def _compares(value: ast.expr) -> bool:
    while isinstance(value, ast.Attribute | ast.Subscript):
        value = value.value
    if isinstance(value, ast.Call):
        return _name(value.func) in _COMPARING
    return isinstance(value, ast.Compare | ast.BoolOp) or (
        isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.Not)
    )


def _has_reason(call: ast.Call) -> bool:
    needed = 2 if _name(call.func) == "skipif" else 1
    given = [k.value for k in call.keywords if k.arg in ("reason", "msg")] or call.args[needed - 1 :]
    return bool(given) and not _is_blank(given[0])


def _is_blank(reason: ast.expr) -> bool:
    """A constant that is no text; what is computed counts as a reason."""
    return isinstance(reason, ast.Constant) and not (isinstance(reason.value, str) and reason.value.strip())


def _is_bare_mark(node: ast.Attribute, tree: ast.Module) -> bool:
    """`@pytest.mark.skip`, or `@mark.skip`, without a call."""
    called = any(isinstance(n, ast.Call) and n.func is node for n in ast.walk(tree))
    return _name(node.value) == "mark" and not called


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def main(folder: str) -> int:
    """Print the findings of every test file under `folder`; exit code 1 where there are any."""
    complaints = 0
    for path in sorted(Path(folder).rglob("test_*.py")):
        for line, text in findings(path.read_text()):
            print(f"{path}:{line}: {text}")
            complaints += 1
    return min(complaints, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
