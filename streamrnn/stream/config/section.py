"""The base of the tables of a pipeline file."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict

from streamrnn.base.display import location


class Section(BaseModel):
    """A frozen table that refuses unknown keys and converts no value silently."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, location(value) if isinstance(value, str) else value
