"""Whether a run may resume from what is committed."""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from streamrnn.base.display import location, short_model
from streamrnn.errors import CheckpointError
from streamrnn.stream.checkpoints.manifest import Manifest, decode_schema
from streamrnn.stream.config import may_change, value_of, without_secrets
from streamrnn.stream.config.values import WAYS


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config as JSON would store it, without credentials, for comparison."""
    stored: dict[str, Any] = json.loads(json.dumps(without_secrets(config), default=str))
    return stored


def check_same_pipeline(
    manifest: Manifest,
    model: str,
    config: Mapping[str, Any],
    output: str,
    *,
    new_model: bool = False,
) -> None:
    """Raise CheckpointError, with all differences, if model or config is not as in the manifest.

    With `new_model`, the model and the keys that describe it may differ.
    """
    then, now = plain(manifest.config), plain(config)
    if "source.schema" in then:
        then["source.schema"] = _typed(then["source.schema"], now.get("source.schema"))
    keys = [
        key
        for key in sorted(then.keys() | now.keys())
        if _value(then, key) != _value(now, key) and not may_change(key, then, now)
        if not (new_model and key.startswith("model."))
    ]
    others = [key for key in keys if not key.startswith("model.")]
    changed = manifest.model != model and not new_model
    if not (changed or keys):
        return
    lines = [f"  {key}: was {_shown(then, key)}, is now {_shown(now, key)}" for key in keys]
    if changed:
        then_model, now_model = short_model(manifest.model), short_model(model)
        lines.insert(0, f"  model fingerprint: was {then_model}, is now {now_model}")
    advice = "Set another [sink] path, undo the change, "
    if changed and not others:
        ways = "".join(f"\n  --new-model {way}: {what}" for way, what in WAYS.items())
        advice = f"Say how the new model takes over:{ways}\nUndo the change, "
    elif not changed and keys == ["output.model_column"]:
        advice = (
            "To go on after its last row, write to another folder: set another [sink] path, and "
            f'[state] init = "{location(output)}". Or undo the change, '
        )
    raise CheckpointError(
        f"{location(output)} was written by another {'pipeline' if others else 'model'} (commit "
        f"{manifest.commit}, {manifest.time}):\n" + "\n".join(lines) + f"\n{advice}or start over "
        "with --full-refresh, which removes the output written so far."
    )


def check_schema(manifest: Manifest, schema: pa.Schema, output: str) -> None:
    """Raise CheckpointError, with both schemas, for rows whose schema is not the manifest's."""
    then = decode_schema(manifest.schema)
    if not then.equals(schema):
        raise CheckpointError(
            f"the columns of {output} differ from those that this run writes.\n"
            f"  output:   {_columns(then)}\n  this run: {_columns(schema)}\n"
            "Set [output] names to the names in the output, set another [sink] path, or start over "
            "with --full-refresh."
        )


def _typed(then: Any, now: Any) -> Any:
    """Return the recorded types of columns; a column that had no values gets its current type."""
    if not isinstance(then, Mapping) or not isinstance(now, Mapping):
        return then
    return {k: now.get(k, kind) if kind == "null" else kind for k, kind in then.items()}


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)


def _value(config: Mapping[str, Any], key: str) -> Any:
    return json.loads(json.dumps(value_of(key, config), default=str))


def _shown(config: Mapping[str, Any], key: str) -> str:
    return json.dumps(value_of(key, config), ensure_ascii=False) if key in config else "not set"
