"""What the command's process does without."""

import sys
from importlib.abc import MetaPathFinder


class _WithoutPandas(MetaPathFinder):
    """pyarrow imports pandas, where it finds it, before it first speaks with NumPy.

    That takes 0.4 s of each start, and no code that could use it runs in the command.
    """

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("the streamrnn command runs without pandas", name="pandas")


def run_without_pandas() -> None:
    """Let nothing in this process import pandas from now on."""
    sys.meta_path.insert(0, _WithoutPandas())
