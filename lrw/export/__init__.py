"""From trained layers and networks to what is compiled ahead of time: C libraries without Python.

`export_layer` compiles one Winograd layer; `trace` brings a network into the form the compiler takes.
"""

from lrw.export.layer import export_layer
from lrw.export.trace import trace

__all__ = ["export_layer", "trace"]
