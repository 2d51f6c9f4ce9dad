"""A config that means the same files in any working directory."""

import os
from typing import Any

from streamrnn.base.display import location
from streamrnn.stream.config.load import Config
from streamrnn.stream.config.paths import PATHS
from streamrnn.stream.config.schema import PIPE


def absolute_paths(config: Config, folder: str) -> dict[str, Any]:
    """Return the tables of a config, as in a file, with local paths resolved from `folder`.

    Names of tables in memory are kept, and URIs without their credentials.
    """
    data: dict[str, Any] = config.model_dump(mode="json", exclude_unset=True, by_alias=True)
    for name in PATHS:
        table, _, key = name.partition(".")
        path = data.get(table, {}).get(key)
        if isinstance(path, str) and path != PIPE and ":" not in path.partition("/")[0]:
            data[table][key] = os.path.join(folder, path)
        elif isinstance(path, str):
            data[table][key] = location(path)
    return data
