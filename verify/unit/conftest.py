"""The bench's cache as a fixture for every file here."""

from verify.unit.arm_programs import bench_cache

__all__ = ["bench_cache"]
