"""One door for the libraries only the data loaders need."""

import importlib
from types import ModuleType


def require(module: str, package: str) -> ModuleType:
    """Import `module`, which the PyPI project `package` brings.

    Raises:
        ImportError: it is not installed; the message says what to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(f"this data needs {package}, which is not installed: pip install 'lrw[data]'") from error
