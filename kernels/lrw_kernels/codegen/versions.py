"""Versions of packages, whether or not their metadata is there."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version


def package_version(package: str) -> str:
    """An installed package's version; where its metadata is missing (frozen applications), what the module says."""
    try:
        return version(package)
    except PackageNotFoundError:
        return str(import_module(package).__version__)
