"""From a torch network to a C library without Python: `trace` brings it into the form the compiler takes, `export`
compiles that."""

from lrw.export.library import export
from lrw.export.trace import trace

__all__ = ["export", "trace"]
