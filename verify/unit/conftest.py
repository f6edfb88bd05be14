"""The exported networks as fixtures for every file here."""

from verify.unit.exported_networks import built, native

__all__ = ["built", "native"]
