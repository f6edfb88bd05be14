"""The exported layers as fixtures for every file here."""

from verify.unit.exported_layers import built, native

__all__ = ["built", "native"]
