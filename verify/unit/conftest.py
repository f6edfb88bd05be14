"""The exported networks and the bench's cache as fixtures for every file here."""

from verify.unit.arm_programs import bench_cache
from verify.unit.exported_networks import built, native

__all__ = ["bench_cache", "built", "native"]
