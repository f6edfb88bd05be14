"""What `import lrw` brings at once, and what comes when it is used: the same names, whatever was imported first."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lrw

SOURCE = ast.parse(Path(lrw.__file__).read_text())


def passed(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def test_every_public_name_is_there_and_typed() -> None:
    imported = [node for node in ast.walk(SOURCE) if isinstance(node, ast.ImportFrom) and node.module != "typing"]
    typed = {alias.name: node.module for node in imported for alias in node.names}
    assert set(lrw.__all__) == set(typed) - {"late"}
    assert {name: typed[name] for name in lrw._late} == lrw._late
    for name in lrw.__all__:
        assert name in dir(lrw)
        assert getattr(lrw, name) is getattr(sys.modules[str(typed[name])], name)


def test_an_import_brings_the_operators_and_no_more() -> None:
    script = """
import sys
import lrw, torch
assert torch.ops.lrw.winograd_forward and torch.ops.lrw.while_kept
assert lrw.ops.winograd_conv3d and lrw.nn.WinogradConv3d
print(*sorted({"rich", "numba", "llvmlite", "triton", "lrw.accelerate", "lrw.trace", "lrw.pruning"} & set(sys.modules)))
"""
    assert passed(script) == ""


@pytest.mark.parametrize("name", ["accelerate", "check", "compress", "export", "prune"])
def test_a_module_imported_first_does_not_hide_the_function(name: str) -> None:
    script = f"""
import sys
import lrw.{name}
first = lrw.{name}
from lrw.{name} import {name}
print(callable(first), first is {name}, lrw.{name} is {name}, lrw.{name} is not sys.modules["lrw.{name}"])
"""
    assert passed(script) == "True True True True"


def test_other_names_are_refused_as_python_does() -> None:
    with pytest.raises(AttributeError, match="module 'lrw' has no attribute 'nothing'"):
        lrw.nothing  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'nothing' from 'lrw'"):
        from lrw import nothing  # noqa: F401
