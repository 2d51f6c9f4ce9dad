"""Ray, which is imported when it is first used."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from streamrnn.errors import ConfigError


def ray(module: str = "") -> Any:
    """Return a module of Ray. Raises ConfigError, with the extra, if it is missing."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read by the import
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        return import_module(f"ray.{module}" if module else "ray")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "ray":
            raise
        raise ConfigError('[engine] type = "ray" needs Ray: pip install "streamrnn[ray]"') from None
