"""The bench's cache, in a folder of the tests' own, for every file here."""

from verify.unit.bench.arm_programs import bench_cache

__all__ = ["bench_cache"]
