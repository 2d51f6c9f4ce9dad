"""The demo: what the pages of the guide use of the repository, which is part of the wheel."""

import shutil
from pathlib import Path

from streamrnn import errors
from streamrnn.errors import ConfigError, MissingFileError

_PIPELINE = "pipelines/weather.toml"
_FILES = (
    _PIPELINE,
    "pipelines/weather/model.safetensors",
    "pipelines/weather_torch.toml",
    "pipelines/origins/check.npz",
    "pipelines/origins/state_dict.safetensors",
    "pipelines/origins/weather.keras",
    "pipelines/origins/weather.onnx",
    "data/weather.parquet",
)


def write_demo() -> list[str]:
    """Write pipelines that run, with their log and models, into the current folder.

    Returns the names of the files: the weather pipeline's first, all in the folders data and
    pipelines, named as the pages of the guide name them.
    Raises ConfigError if data or pipelines exists, MissingFileError if streamrnn was installed
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
    folders = []
    try:
        for folder in (Path("data"), Path("pipelines")):
            folder.mkdir()
            folders.append(folder)
        for name in _FILES:
            Path(name).parent.mkdir(exist_ok=True)
            shutil.copyfile(home / name, name)
    except BaseException as error:
        for folder in folders:
            shutil.rmtree(folder)
        if isinstance(error, FileExistsError):
            raise ConfigError(
                f"{error.filename} already exists; remove it, or use another folder"
            ) from None
        raise
    return list(_FILES)
