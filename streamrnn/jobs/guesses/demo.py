"""The demo: the weather pipeline with its log and model, which are part of the wheel."""

import os
import shutil
from pathlib import Path

from streamrnn import errors
from streamrnn.errors import ConfigError, MissingFileError

_PIPELINE = "pipelines/weather.toml"
_NAMES = {
    "data/weather.parquet": "demo/weather.parquet",
    "pipelines/weather/model.safetensors": "demo/model.safetensors",
    _PIPELINE: "demo.toml",
    "the repository's root": "the folder that has it",
}
"""Texts of the repository's pipeline file, and their replacements in the demo's."""


def write_demo() -> list[str]:
    """Write a pipeline that runs, with its log and its model, into the current folder.

    Returns the names of the files: demo.toml, and the files that it names, in the folder demo.
    Raises ConfigError if demo.toml or demo exists, MissingFileError if streamrnn was installed
    without the demo, OSError if the folder cannot be written to. If it raises, it leaves nothing
    behind.
    """
    package = Path(errors.__file__).parent
    # pyproject.toml copies the files into a wheel; in a clone they stand beside the package.
    home = next(
        (at for at in (package / "demo", package.parent) if (at / _PIPELINE).exists()), None
    )
    if home is None:
        raise MissingFileError(
            f"{package / 'demo'}: no such folder, and the package is not in a clone of the "
            "repository: streamrnn was installed without its demo; install its wheel"
        )
    for name in ("demo.toml", "demo"):
        if os.path.lexists(name):
            raise ConfigError(f"{name} already exists; remove it, or use another folder")
    text = (home / _PIPELINE).read_text(encoding="utf-8")
    Path("demo").mkdir()
    try:
        for name, new in _NAMES.items():
            text = text.replace(name, new)
            if new.startswith("demo/"):
                shutil.copyfile(home / name, new)
        written = Path("demo", "demo.toml")
        written.write_text(text, encoding="utf-8")
        written.rename("demo.toml")  # last: it names the others
    except BaseException:
        shutil.rmtree("demo")
        raise
    return ["demo.toml", "demo/weather.parquet", "demo/model.safetensors"]
