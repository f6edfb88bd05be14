"""How often lrw was wrong: fuzzed arguments and files, hours of mixed shapes in many threads."""

from bench.reliability.rows import Row, table

__all__ = ["Row", "table"]
