"""The pages of the guide that only look things up, made from the code.

python tests/guide/generate.py
"""

import inspect
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import typer
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

import streamrnn
from streamrnn import activations, errors, losses, metrics, optimizers, regularizers
from streamrnn.cli.app import app
from streamrnn.jobs.running.metrics import METRICS
from streamrnn.stream.config.keys import may_change
from streamrnn.stream.config.notations import format_duration
from streamrnn.stream.config.schema import AfterSection, FeatureSection, IcebergTable, Sections
from streamrnn.stream.config.toml_text import toml
from streamrnn.stream.config.training import ValidationSection
from streamrnn.stream.config.values import Section
from streamrnn.stream.scoring.summary import RowCounts, Summary
from streamrnn.stream.sources.times import sine_and_cosine

GUIDE = Path(streamrnn.__file__).parent / "guide"


def keys() -> str:
    """Every key of the pipeline file: its default, whether it may change between runs, its help."""
    lines = [
        "# Keys of the pipeline file",
        "",
        "*free*: may change between two runs of one output; *fixed*: a change is refused, as it "
        "would change bits. A key without a default has to be set where its table is used.",
    ]
    for table, field in Sections.model_fields.items():
        kind: Any = field.annotation
        lines += ["", f"## [{table}]", "", kind.__doc__, "", *_HEAD]
        for name in kind.model_fields:
            lines.append(_row(kind, name, f"{table}.{name}"))
            inner, path = _INNER.get(f"{table}.{name}", (Section, ""))
            lines += [
                _row(inner, key, path or f"source.features.*.{key}", f"{name}: ")
                for key in inner.model_fields
            ]
    return "\n".join([*lines, ""])


_HEAD = ("| key | type | default | change | what it does |", "|---|---|---|---|---|")


_INNER: dict[str, tuple[type[Section], str]] = {
    "source.features": (FeatureSection, ""),
    "source.after": (AfterSection, "source.after"),
    "train.validation": (ValidationSection, "train.validation"),
    "publish.iceberg": (IcebergTable, "publish.iceberg"),
}
"""Tables in a table; all keys of one are free or fixed with it, but for those of features."""


def _row(section: type[Section], name: str, key: str, of: str = "") -> str:
    spec = section.model_fields[name]
    alias = spec.alias or name
    free = _may_change(key.rstrip("_"))
    text = (spec.description or "").replace("|", "\\|")
    kind = _type(section.model_json_schema()["properties"][alias])
    return f"| `{of}{alias}` | {kind} | {_default(spec)} | {free} | {text} |"


def _may_change(key: str) -> str:
    configs = [{"window.kind": kind} for kind in ("carry", "independent")]
    free = [may_change(key, config, config) for config in configs]
    return {
        (True, True): "free",
        (False, False): "fixed",
        (True, False): "fixed in kind independent",
    }[free[0], free[1]]


def _type(schema: dict[str, Any]) -> str:
    """What TOML calls a value, or several."""
    if "anyOf" in schema:
        kinds = [_type(option) for option in schema["anyOf"]]
        return " or ".join(dict.fromkeys(kind for kind in kinds if kind))
    if "enum" in schema:
        return "string" if isinstance(schema["enum"][0], str) else "integer"
    names = {"object": "table", "null": "", "number": "number", "$ref": "table"}
    kind = schema.get("type", "$ref" if "$ref" in schema else "string")
    return names.get(kind, kind)


def _default(spec: FieldInfo) -> str:
    value = spec.get_default()
    if value is PydanticUndefined or value is None or value in ((), {}, ""):
        return ""
    if isinstance(value, timedelta):
        return f'`"{format_duration(value)}"`' if value else ""
    return f"`{toml(value)}`"


def commands() -> str:
    """Every command, with its help, arguments and options."""
    lines = ["# Commands", "", "`streamrnn COMMAND --help` prints the same."]
    for words, command in _commands(typer.main.get_command(app)):
        help_text = inspect.cleandoc(command.help or "").replace("\n", " ")
        lines += ["", f"## streamrnn {words}", "", re.sub(r"\s+", " ", help_text)]
        rows = [
            f"| `{_names(item)}` | {(item.help or '').replace('|', chr(92) + '|')} |"
            for item in command.params
            if item.name != "help" and not getattr(item, "hidden", False)
        ]
        if rows:
            lines += ["", "| option | what it does |", "|---|---|", *rows]
    return "\n".join([*lines, ""])


def _commands(command: Any, words: str = "") -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "list_commands"):
        yield words, command
        return
    for name in command.list_commands(None):
        yield from _commands(command.resolve_command(None, [name])[1], f"{words} {name}".strip())


def _names(item: Any) -> str:
    names = ", ".join(item.opts) if item.param_type_name == "option" else ""
    metavar = item.metavar or ""
    return f"{names} {metavar}".strip() or str(item.name).upper()


def exceptions() -> str:
    """Every exception, with what it is a subclass of, and the exit code of the command line."""
    lines = [
        "# Exceptions",
        "",
        "All are classes of `streamrnn.errors`, and subclasses of `StreamRNNError`.",
        "",
        "| class | also a | exit code | when |",
        "|---|---|---|---|",
    ]
    for name in errors.__all__:
        kind = getattr(errors, name)
        bases = ", ".join(f"`{base.__name__}`" for base in kind.__bases__)
        lines.append(f"| `{name}` | {bases} | {kind.exit_code} | {_summary(kind)} |")
    return "\n".join([*lines, ""])


def counters() -> str:
    """The counts of a summary, and the metrics of `--metrics`."""
    lines = [
        "# Counters and metrics",
        "",
        "## In the summary of a run",
        "",
        "`Pipeline.run()` returns them, `streamrnn run --json` prints them.",
        "",
        inspect.getdoc(Summary) or "",
        "",
        "What `Pipeline.counts` has of the calls of `process`, too:",
        "",
        inspect.getdoc(RowCounts) or "",
        "",
        "Fields: " + ", ".join(f"`{name}`" for name in Summary().as_dict()) + ".",
        "",
        "## In the file of --metrics",
        "",
        "Each begins with `streamrnn_`; those in `_total` are counters, the others gauges.",
        "",
        "| metric | what it says |",
        "|---|---|",
        *(f"| `{name}` | {text} |" for name, text in METRICS.items()),
    ]
    return "\n".join([*lines, ""])


def formulas() -> str:
    """Time features, losses, metrics, optimizers, activations and regularizers, in a line each."""
    lines = [
        "# Formulas",
        "",
        "From the docstrings: `help(streamrnn.losses.Huber)` has the arguments.",
        "",
        "## Time features",
        "",
        inspect.getdoc(sine_and_cosine) or "",
    ]
    for module in (losses, metrics, optimizers, activations, regularizers):
        title = module.__name__.rpartition(".")[2].capitalize()
        lines += ["", f"## {title}", "", "| name | what it is |", "|---|---|"]
        lines += [f"| `{name}` | {_summary(getattr(module, name))} |" for name in _public(module)]
    return "\n".join([*lines, ""])


_LOOK_UPS = {"get", "compute", "serialize", "deserialize"}


def _public(module: ModuleType) -> list[str]:
    names = getattr(module, "__all__", None) or [name for name in dir(module) if name[0] != "_"]
    return [name for name in names if callable(getattr(module, name)) and name not in _LOOK_UPS]


def _summary(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").partition("\n\n")[0].replace("\n", " ").replace("|", "\\|")


PAGES: dict[str, Callable[[], str]] = {
    "keys": keys,
    "commands": commands,
    "errors": exceptions,
    "counters": counters,
    "formulas": formulas,
}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (GUIDE / f"{name}.md").write_text(page())
