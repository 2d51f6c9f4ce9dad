"""The files that a state has seen, as the metadata of its exported table lists them."""

import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from streamrnn.base.display import first_of, location
from streamrnn.errors import StateError
from streamrnn.stream.checkpoints.manifest import Manifest, UsedFile
from streamrnn.stream.checkpoints.records import built, check_fields, fields_of
from streamrnn.stream.config import check_schema_types
from streamrnn.stream.sources import Position

_KEY = b"streamrnn.sources"


@dataclass(frozen=True)
class SeenFiles:
    """The used files of an output, as its manifest has them; see `Manifest`.

    `schema` has the columns that were read, in order, and their types as text; `label` names the
    state table in messages.
    """

    sources: tuple[UsedFile, ...]
    position: Position | None
    home: str
    schema: Mapping[str, str]
    label: str = "the initial state"

    def within(self, names: Container[str], columns: Sequence[str] | None) -> "SeenFiles":
        """Return a copy; a position in other files and a schema of other columns are left out."""
        there = self.position is None or self.position.file in names
        same = columns is None or set(columns) == set(self.schema)
        return replace(
            self, position=self.position if there else None, schema=self.schema if same else {}
        )

    def among(self, names: Sequence[str]) -> list[str]:
        """Return which of `names` the state has seen."""
        seen = {file.path for file in self.sources}
        return [name for name in names if name in seen]

    def advice(self, names: Sequence[str], *, refresh: bool) -> str:
        """Advise how to score files that the state has seen; `refresh`: the output has commits."""
        return (
            f"The initial state has seen {first_of(names)} ({self.label}). Score "
            f"{'it' if len(names) == 1 else 'them'} again where the state was made"
            f"{f' ({location(self.home)})' if self.home else ''}, with --reload; export the state "
            f"again; and rerun this pipeline{' with --full-refresh' if refresh else ''}."
        )


def with_seen_files(table: pa.Table, manifest: Manifest | None) -> pa.Table:
    """Add the used files of an output to the metadata of its state table."""
    if manifest is None or not manifest.sources:
        return table
    schema = manifest.config.get("source.schema", {})
    return with_seen(table, SeenFiles(manifest.sources, manifest.position, manifest.home, schema))


def with_seen(table: pa.Table, seen: SeenFiles) -> pa.Table:
    """Add the files that a state has seen to the metadata of its table."""
    facts = {name: getattr(seen, name) for name in ("sources", "position", "home", "schema")}
    text = json.dumps(facts, default=fields_of, ensure_ascii=False)
    return table.replace_schema_metadata({**(table.schema.metadata or {}), _KEY: text.encode()})


def seen_files(table: pa.Table, label: str) -> SeenFiles | None:
    """Read what `with_seen_files` added; None if there is nothing. Raises StateError."""
    text = (table.schema.metadata or {}).get(_KEY)
    if text is None:
        return None
    try:
        facts = json.loads(text)
        check_schema_types(facts["schema"])
        seen: SeenFiles = built(SeenFiles, facts)
        check_fields([seen])
        return replace(seen, label=label)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise StateError(
            f"{label}: the list of used files in its metadata is damaged: {error}. Export it again."
        ) from error
