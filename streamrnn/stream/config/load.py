"""Loading of pipeline files: every key gets a value, and all problems are reported at once."""

import errno
import os
import pathlib
import re
import select
import stat
import tomllib
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Any, Literal, Self, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from streamrnn.base.display import location, uri_fault
from streamrnn.errors import ConfigError, ConfigFileMissingError
from streamrnn.stream.config.paths import PATHS, SIDE_OUTPUTS, side_folder
from streamrnn.stream.config.problems import (
    Path,
    Problem,
    choices,
    config_error,
    did_you_mean,
    received,
)
from streamrnn.stream.config.rules import run_checks
from streamrnn.stream.config.schema import (
    PIPE,
    TABLES,
    AfterSection,
    FeatureSection,
    IcebergTable,
    Sections,
)
from streamrnn.stream.config.toml_text import (
    apply_overrides,
    interpolate,
    key_lines,
    listed_overrides,
)
from streamrnn.stream.config.training import ValidationSection
from streamrnn.stream.config.values import Section

# Stand-ins for required keys, so that the checks between keys can run on the valid ones.
STAND_INS: dict[str, dict[str, Any]] = {
    "source": {"key": "?", "features": ["?"]},
    "model": {"path": "?"},
}


_INNER: dict[str, type[Section]] = {
    "features": FeatureSection,
    "after": AfterSection,
    "validation": ValidationSection,
    "iceberg": IcebergTable,
}


class Config(Sections):
    """A pipeline file as frozen tables, with defaults for the keys that the file does not set."""

    @classmethod
    def load(cls, path: str | os.PathLike[str], overrides: Iterable[str] = (), *more: str) -> Self:
        """Read a TOML file, apply `dotted.key=value` overrides, and replace environment variables.

        `more` are further overrides. Raises ConfigError, which lists all problems by file, line (or
        override) and dotted key; ConfigFileMissingError if the file does not exist.
        """
        changes = [*listed_overrides(overrides), *more]
        file = os.fspath(path)
        text = _read(file)
        data = _parse_toml(text, file)
        origins, problems = apply_overrides(data, changes)
        lines = {
            path: line
            for path, line in key_lines(text).items()
            if not any(path[: len(override)] == override for override in origins)
        }
        data, unset = interpolate(data, os.environ)
        config, wrong = cls._check(data, {problem.path for problem in unset})
        problems = [*problems, *unset, *wrong]
        if config is None or problems:
            raise config_error(problems, file=file, lines=lines, origins=origins)
        return config

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Self:
        """Make a config from a dict with the tables of a file; `${VAR}` is not replaced.

        Raises ConfigError, which lists all problems by dotted key.
        """
        if not isinstance(data, Mapping):
            raise ConfigError(
                "expected a dict with the tables of a pipeline file, received "
                f"{type(data).__name__}. Load a pipeline file with Pipeline.from_toml(path)"
            )
        config, problems = cls._check(data, set())
        if config is None:
            raise config_error(problems)
        return config

    @classmethod
    def _check(
        cls, data: Mapping[str, Any], reported: set[Path]
    ) -> tuple[Self | None, list[Problem]]:
        """Return the config and its problems; `reported` are the paths of problems known before.

        The config is None if there are problems of either kind. Checks of single keys report
        nothing at `reported` paths; checks between keys skip them.
        """
        problems = [
            Problem((name,), _unknown(name, cls)) for name in data if name not in cls.model_fields
        ]
        invalid: set[Path] = {path[:2] for path in reported}
        tables: dict[str, Section] = {}
        for name, kind in TABLES.items():
            raw = data.get(name, {})
            if not isinstance(raw, dict):
                message = f"expected a table [{name}], received {received(raw)}"
                problems.append(Problem((name,), message))
                invalid.update((name, key) for key in kind.by_key())
                raw = STAND_INS.get(name, {})
            try:
                tables[name] = kind.model_validate(raw)
            except ValidationError as error:
                details = error.errors(include_url=False)
                reworded = [problem_of(detail, name, kind) for detail in details]
                problems += [each for each in reworded if each and each.path not in reported]
                bad = {str(detail["loc"][0]) for detail in details}
                invalid.update((name, key) for key in bad)
                good = {key: value for key, value in raw.items() if key not in bad}
                tables[name] = kind.model_validate({**STAND_INS.get(name, {}), **good})
        config = cls.model_construct(None, **tables)
        problems += run_checks(config, invalid)
        return (None if problems or reported else config), problems

    def with_keys(self, **tables: Mapping[str, Any]) -> Self:
        """Return a copy of the config with other values: `with_keys(model={"threads": 1})`.

        The keys count as set, even if a value is the default. Values are not checked.
        """
        return self.model_copy(
            update={name: getattr(self, name).model_copy(update=k) for name, k in tables.items()}
        )

    @property
    def quantiles(self) -> tuple[float, ...]:
        """The levels of outputs that are quantiles; empty for other outputs."""
        return self.output.quantiles or self.train.quantiles

    @property
    def side_folders(self) -> dict[str, str]:
        """The folders of the side outputs that a run writes, by name."""
        folders = {}
        for name, side in SIDE_OUTPUTS.items():
            if not side.where or attrgetter(side.where)(self):
                path = attrgetter(side.path)(self)
                if path is None and self.sink.folder is not None:
                    path = side_folder(self.sink.folder, name)
                if path is not None:
                    folders[name] = path
        return folders

    def require_run(self) -> None:
        """Raise ConfigError unless source.path and sink.path are set; `process` needs neither."""
        missing = [
            Problem((name, "path"), f"required for a run but missing: {description}")
            for name, table in (("source", self.source), ("sink", self.sink))
            if table.path is None
            for description in [type(table).model_fields["path"].description]
        ]
        if missing:
            raise config_error(missing)

    def canonical(self) -> dict[str, Any]:
        """Return dotted key -> value for all keys, with defaults, in forms that JSON can hold.

        The keys of a feature are listed under its name: `source.features.temp.clip`.
        """
        data = self.model_dump(mode="json", by_alias=True)
        features = data["source"]["features"]
        data["source"]["features"] = [feature["name"] for feature in features]
        for feature, spec in zip(features, self.source.features, strict=True):
            feature["nulls"] = self.source.nulls_of(spec)
            feature["nan"] = self.source.nan_of(spec)
            name = feature.pop("name")
            data[f"source.features.{name}"] = feature
        flat: dict[str, Any] = {}
        for table, keys in data.items():
            for key, value in keys.items():
                flat[f"{table}.{key}"] = _portable(value)
        flat["output.columns"] = "*" if self.columns is None else list(self.columns)
        return flat


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a pipeline file, for editors."""
    schema = {**Sections.model_json_schema(), "title": "streamrnn pipeline"}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _read(file: str) -> str:
    if fault := uri_fault(file):
        raise ConfigError(f"{location(file)}: {fault}")
    try:
        return read_file(file).decode("utf-8-sig").replace("\r\n", "\n")
    except FileNotFoundError:
        shown = location(file)
        raise ConfigFileMissingError(
            f"{shown}: no such pipeline file; `streamrnn init {shown}` writes a sample"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{file}: not valid TOML: byte {error.start} is not UTF-8; check that this is a "
            "pipeline file"
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{file}: cannot be read: {reason}") from None


def _parse_toml(text: str, file: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{file}: not valid TOML: nested too deeply") from None
    except ValueError as error:
        message = str(error).removesuffix(" (at end of document)")
        location = file
        if place := re.search(r" \(at line (\d+), column (\d+)\)$", message):
            message = message.removesuffix(place[0])
            location = f"{file}:{place[1]}:{place[2]}"
        elif message != str(error):
            location = f"{file}:{len(text.splitlines()) or 1}"
        if file.lower().endswith((".yaml", ".yml", ".json")):
            message += (
                ". A pipeline file is TOML: `streamrnn init pipeline.toml` writes a sample; in "
                "Python, Pipeline.from_dict takes the same tables as dicts"
            )
        raise ConfigError(f"{location}: not valid TOML: {message}") from None


def problem_of(detail: ErrorDetails, table: str, kind: type[Section]) -> Problem | None:
    """Reword a pydantic error; return None if it only follows from another error."""
    path: Path = (table, *detail["loc"])
    # The class of the table that has the key: a table inside this one, or this one.
    owner = _INNER.get(str(path[1]), kind) if len(path) > 2 else kind
    name = str(path[-1])
    value, hint = received(detail["input"]), ""
    match detail["type"]:
        case "default_factory_not_called":
            return None
        case "value_error":
            return Problem(path, str(detail["ctx"]["error"]))
        case "extra_forbidden":
            return Problem(path, _unknown(name, owner))
        case "missing":
            return Problem(path, f"required but missing: {owner.by_key()[name].description}")
        case "literal_error":
            annotation = owner.by_key()[name].annotation
            literals = [kind for kind in get_args(annotation) if get_origin(kind) is Literal]
            options = [str(o) for kind in literals or [annotation] for o in get_args(kind)]
            expected, hint = choices(options), did_you_mean(str(detail["input"]), options)
        case "int_type" | "greater_than_equal" | "less_than_equal" | "int_parsing_size":
            schema = owner.model_json_schema()["properties"][name]
            ends = next(each for each in (schema, *schema.get("anyOf", ())) if "maximum" in each)
            expected = f"an integer from {ends['minimum']} to {ends['maximum']}"
        case "greater_than":
            expected = f"a number above {detail['ctx']['gt']}"
        case "less_than":
            expected = f"a number below {detail['ctx']['lt']}"
        case "bool_type":
            expected = "true or false"
        case "string_type" | "string_too_short" | "too_short":
            expected = "a non-empty string"
        case "model_type" | "dict_type":
            expected = "a table"
        case _:
            return Problem(path, f"{detail['msg']}, received {value}")
    return Problem(path, f"expected {expected}, received {value}{hint}")


def _unknown(name: str, table: type[Section]) -> str:
    """Return the message for a key that the table does not have."""
    keys = list(table.by_key())
    homes = [home for home, other in TABLES.items() if name in other.by_key()]
    hint = did_you_mean(name, keys)
    if homes:
        hint = f"; it belongs to {' or '.join(f'[{home}]' for home in homes)}"
    return f"unknown key{hint} (known here: {', '.join(keys)})"


def _portable(value: Any) -> Any:
    """Replace infinities (open ends of ranges) with text, as JSON has none."""
    if isinstance(value, list | tuple):
        return [_portable(item) for item in value]
    return str(value) if value in (float("inf"), float("-inf")) else value


WAIT_SECONDS = 10
"""How long a pipe may send nothing."""
_PIPE_BYTES = 1 << 24
_OPENED = re.compile(r"/dev/stdin|/dev/fd/\d+|/proc/self/fd/\d+")


def read_file(path: str) -> bytes:
    """Read a regular file, or a pipe of this process: `/dev/stdin`, or `<(…)` in a shell.

    Raises OSError, including for a named pipe, which may never get a writer; ValueError for a path
    with a null byte; ConfigError for a pipe that is silent for too long, or sends too much.
    """
    mode = os.stat(path).st_mode
    if stat.S_ISFIFO(mode) and _OPENED.fullmatch(path):
        return _read_pipe(path)
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "expected a regular file, found a device or named pipe", path)
    return pathlib.Path(path).read_bytes()


def _read_pipe(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        data = bytearray()
        while select.select([descriptor], [], [], WAIT_SECONDS)[0]:
            block = os.read(descriptor, 1 << 16)
            if not block:
                return bytes(data)
            data += block
            if len(data) > _PIPE_BYTES:
                raise ConfigError(
                    f"{path}: expected a pipeline file, received more than {_PIPE_BYTES >> 20} MiB"
                )
    finally:
        os.close(descriptor)
    raise ConfigError(
        f"{path}: cannot be read: the pipe sent nothing for {WAIT_SECONDS} s. Write the pipeline "
        "to a file"
    )


def absolute_paths(config: Config, folder: str) -> dict[str, Any]:
    """Return the tables of a config as the keys were set, local paths resolved from `folder`.

    Names of tables in memory (`memory:…`) are kept; URIs lose their credentials.
    """
    data: dict[str, Any] = config.model_dump(mode="json", exclude_unset=True, by_alias=True)
    for name in PATHS:
        table, _, key = name.partition(".")
        path = data.get(table, {}).get(key)
        if isinstance(path, str):
            local = path != PIPE and ":" not in path.partition("/")[0]
            data[table][key] = os.path.join(folder, path) if local else location(path)
    return data
