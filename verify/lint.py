"""Lint for tests: python -m verify.lint FOLDER. Rejects

- a test that asserts nothing (no assert, no raises/warns, no call to an assert_*/check helper)
- a comparison whose result nobody reads
- a skip or xfail without a reason
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

_ASSERTING = ("assert", "check", "raises", "warns", "gradcheck", "gradgradcheck", "opcheck", "fail")


def findings(source: str) -> Iterator[tuple[int, str]]:
    """(line, complaint) for one test file."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and not _asserts(node):
            yield node.lineno, f"{node.name} asserts nothing"
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Compare | ast.BoolOp):
            yield node.lineno, "comparison whose result nobody reads"
        if isinstance(node, ast.Call) and _name(node.func) in ("skip", "skipif", "xfail") and not _has_reason(node):
            yield node.lineno, f"{_name(node.func)} without a reason"
        if isinstance(node, ast.Attribute) and node.attr in ("skip", "xfail") and _is_bare_mark(node, tree):
            yield node.lineno, f"{node.attr} without a reason"


def _asserts(test: ast.FunctionDef) -> bool:
    for node in ast.walk(test):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call) and _name(node.func).lstrip("_").startswith(_ASSERTING):
            return True
    return False


def _has_reason(call: ast.Call) -> bool:
    needed = 2 if _name(call.func) == "skipif" else 1
    return any(k.arg in ("reason", "msg") for k in call.keywords) or len(call.args) >= needed


def _is_bare_mark(node: ast.Attribute, tree: ast.Module) -> bool:
    """`@pytest.mark.skip` without a call."""
    bare = isinstance(node.value, ast.Attribute) and node.value.attr == "mark"
    called = any(isinstance(n, ast.Call) and n.func is node for n in ast.walk(tree))
    return bare and not called


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
