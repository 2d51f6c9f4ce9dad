"""A config that means the same files in any working directory."""

import os
from typing import Any

from streamrnn.config.load import Config
from streamrnn.config.schema import PIPE

_PATHS = (
    ("model", "path"),
    ("source", "path"),
    ("sink", "path"),
    ("sink", "rejects"),
    ("state", "init"),
    ("state", "save"),
)


def absolute_paths(config: Config, folder: str) -> dict[str, Any]:
    """Return the tables of a config, as in a file, with local paths resolved from `folder`.

    URIs and names of tables in memory are kept.
    """
    data: dict[str, Any] = config.model_dump(mode="json", exclude_unset=True, by_alias=True)
    for table, key in _PATHS:
        path = data.get(table, {}).get(key)
        if isinstance(path, str) and path != PIPE and ":" not in path.partition("/")[0]:
            data[table][key] = os.path.join(folder, path)
    return data
