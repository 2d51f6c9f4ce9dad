"""Resume `process` from the state table of a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import get_args

import pyarrow as pa

from streamrnn.errors import ConfigError
from streamrnn.jobs.session.checkpoint import Session
from streamrnn.stream.config import Config
from streamrnn.stream.config.values import OnChange
from streamrnn.stream.scoring import LoadedPipeline, Scorer, starting_table
from streamrnn.stream.states import CarryAdvice, check_model, meta

_CARRY = (
    "To keep the state of each stream with the new model, load a checkpoint of the pipeline with "
    'Pipeline.resume(CHECKPOINT, MODEL, on_change="carry").'
)
_MAP = 'map: expected a mapping of layers of the new model to layers of the old one, {"new": "old"}'
_ADVICE = CarryAdvice(
    lambda layers: f'load a checkpoint with Pipeline.resume(…, on_change="carry", map={layers})',
    "start a pipeline from a checkpoint with a map of the layers that fit: "
    "Pipeline.from_toml(FILE, ['state.map={ this = \"other\" }'], state=CHECKPOINT). Layers "
    "that it leaves out start from their initial state.",
)


def check_arguments(model: object, on_change: object, mapping: object) -> None:
    """Raise ConfigError unless these are arguments that `Pipeline.resume` accepts."""
    if model is not None and not isinstance(model, str | os.PathLike):
        raise ConfigError(
            f"model: expected the path of a model file, received {type(model).__name__}. Save the "
            'model first, with model.save("model.safetensors"), and pass that path'
        )
    if on_change not in (None, *get_args(OnChange)):
        expected = " or ".join(get_args(OnChange))
        raise ConfigError(f"on_change: expected {expected}, received {on_change!r}")
    if mapping is None:
        return
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"{_MAP}, received {type(mapping).__name__}")
    for layer, origin in mapping.items():
        if not (isinstance(layer, str) and isinstance(origin, str)):
            raise ConfigError(f"{_MAP}, received {layer!r}: {origin!r}")


def resumed_config(config: Config, model: str | None, mapping: Mapping[str, str] | None) -> Config:
    """Return the config of a checkpoint with the model and the map of `Pipeline.resume`, if any."""
    if mapping is not None:
        state = config.state.model_copy(update={"map": dict(mapping)})
        config = config.model_copy(update={"state": state})
    return config.with_model(path=model)


def resume_scorer(
    loaded: LoadedPipeline,
    session: Session,
    table: pa.Table,
    owner: str,
    on_change: OnChange | None,
) -> Scorer:
    """Return a scorer with the state and the counts of a checkpoint; `owner` names it.

    `on_change` is that of `Pipeline.resume`; None for that of the pipeline file. Raises StateError.
    """
    bound = loaded.bind(session.schema, owner)
    carry = meta(table, "fingerprint") != loaded.fingerprint
    if not loaded.config.with_model(on_change=on_change).model.carries:
        check_model(table, bound.layout, owner, _CARRY)
        carry = False
    scorer = Scorer(
        bound,
        starting_table(
            bound,
            table,
            owner,
            new_model=carry,
            earlier_map=session.config.state.map,
            advice=_ADVICE,
        ),
    )
    scorer.resume_counts(session.counters)
    scorer.position = session.position
    return scorer
