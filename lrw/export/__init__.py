"""From a torch network to a C library without Python: `trace` brings it into the form the compiler takes, `export`
compiles that, `compare` runs the outcome beside torch."""

from lrw.export.check import compare
from lrw.export.library import export
from lrw.trace import trace

__all__ = ["compare", "export", "trace"]
