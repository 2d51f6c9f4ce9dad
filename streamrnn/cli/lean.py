"""Startup of the command without pandas."""

import sys
from importlib.abc import MetaPathFinder


class _WithoutPandas(MetaPathFinder):
    """A finder that hides pandas.

    pyarrow imports pandas, if installed, before its first conversion to NumPy. That takes 0.4 s of
    each start, and the command never uses it.
    """

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("the streamrnn command runs without pandas", name="pandas")


def run_without_pandas() -> None:
    """Prevent any import of pandas in this process from now on."""
    sys.meta_path.insert(0, _WithoutPandas())
