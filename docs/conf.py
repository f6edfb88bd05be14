"""Sphinx's settings: pages in MyST Markdown, the reference out of docstrings."""

import os
import re
import sys
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(ROOT / "kernels")]

import lrw  # noqa: E402
from lrw import cli  # noqa: E402

project = "lrw"
author = "the lrw authors"
copyright = "the lrw authors, MIT licence"
version = release = lrw.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"lrw {release}"

default_role = "code"  # single backticks in docstrings, as in Markdown
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False

myst_heading_anchors = 3
myst_links_external_new_tab = False


# --- docstrings: plain prose with single backticks, read as reStructuredText ------------------------------------------

_SECTION = re.compile(r"(Args|Raises|Returns|Yields|Attributes):$")
_BACKTICKS = re.compile(r"(``.+?``|`[^`]+`)", re.S)
_LIST = re.compile(r"\s*- ")
_NAME = re.compile(r"`(lrw(?:\.\w+)+)`")


def escaped(text: str) -> str:
    """Prose with what is markup in reStructuredText and not in the docstrings escaped, all but backticks.

    Those around a name such as `lrw.load` become a reference to it.
    """
    parts = _BACKTICKS.split(text)
    for i, part in enumerate(parts):
        if i % 2:
            parts[i] = _NAME.sub(r":py:obj:`\1`", part)
        else:
            parts[i] = re.sub(r"(?<=\w)_(?!\w)", r"\\_", re.sub(r"([|*\\])", r"\\\1", part))
    return "".join(parts)


def as_rst(lines: list[str]) -> list[str]:
    """A docstring's lines: indented paragraphs are code, lists have a blank line before them, the rest is `escaped`."""
    out: list[str] = []
    paragraphs = re.split(r"\n\s*\n", "\n".join(lines).strip("\n"))
    section = False
    for paragraph in paragraphs:
        rows = paragraph.split("\n")
        section = section or _SECTION.match(rows[0].strip()) is not None
        if rows[0].startswith("    ") and not section:
            out += [".. code-block:: python", "", *rows, ""]
            continue
        starts = [i for i, row in enumerate(rows) if _LIST.match(row)]
        if starts and starts[0] > 0 and not section:
            rows.insert(starts[0], "")
        out += [*escaped("\n".join(rows)).split("\n"), ""]
    return out


def on_docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Before napoleon looks at them."""
    lines[:] = as_rst(lines)


# --- links -----------------------------------------------------------------------------------------------------------


def on_source(app: Sphinx, docname: str, source: list[str]) -> None:
    """Links to the repository's files outside of docs/ give the file, which the site carries for download."""
    page = Path(app.env.doc2path(docname))

    def path(match: re.Match[str]) -> str:
        target = (page.parent / match.group(1)).resolve()
        return match.group() if target.is_relative_to(HERE) else f"](path:{match.group(1)})"

    source[0] = re.sub(r"\]\((\.\./[^)#\s]+)(?:#[^)\s]*)?\)", path, source[0])


def on_links(app: Sphinx, doctree: nodes.document) -> None:
    """A link to a heading of a page that is generated, and does not have it yet, goes to the page."""
    for link in doctree.findall(pending_xref):
        if link.get("reftargetid") and link.get("reftarget") == "evidence" and not measured():
            link["reftargetid"] = None


def measured() -> bool:
    """Whether the page of evidence has anything to say."""
    return "## " in (HERE / "evidence.md").read_text()


# --- the command line ------------------------------------------------------------------------------------------------


class Help(SphinxDirective):
    """`lrw-help COMMAND`: a section with what `lrw COMMAND --help` prints."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The section."""
        command = self.arguments[0]
        printed = StringIO()
        with redirect_stdout(printed), suppress(SystemExit):
            cli.main([command, "--help"])
        text = re.sub(r"\x1b\[[0-9;]*m", "", printed.getvalue())
        section = nodes.section(ids=[f"lrw-{command}"], names=[f"lrw {command}"])
        section += [nodes.title("", f"lrw {command}"), nodes.literal_block(text, text, language="text")]
        return [section]


def setup(app: Sphinx) -> None:
    """Hang the functions and the directive above into the build."""
    os.environ["COLUMNS"] = "100"  # what argparse wraps at
    app.add_directive("lrw-help", Help)
    app.connect("autodoc-process-docstring", on_docstring, priority=400)
    app.connect("source-read", on_source)
    app.connect("doctree-read", on_links)
