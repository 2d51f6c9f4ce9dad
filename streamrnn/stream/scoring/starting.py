"""Find the state table that a run starts from."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa

from streamrnn.base.display import count, short_model
from streamrnn.errors import ConfigError, StateError
from streamrnn.stream.config.values import OTHER_WAYS, LiveChange, OnChange
from streamrnn.stream.scoring.bind import BoundPipeline
from streamrnn.stream.states import (
    FOR_RUNS,
    CarryAdvice,
    StateTable,
    carried_states,
    check_origins,
    from_arrow,
    has_states,
    meta,
    rows_held,
)


def starting_table(
    bound: BoundPipeline,
    committed: pa.Table | None,
    owner: str,
    notes: list[str] | None = None,
    *,
    on_change: OnChange = "error",
    replayed: StateTable | None = None,
    earlier_map: Mapping[str, str] | None = None,
    advice: CarryAdvice = FOR_RUNS,
) -> StateTable:
    """Return the state of the last commit, else `[state] init`, else an empty one.

    `owner` names the committed state in messages. If the state (committed or `[state] init`) is
    another model's, `on_change` says how this model takes the state over. "carry" maps the layers
    by `[state] map`; if that fails, `advice` ends the message. With "error", `[state] init` is
    carried, too, if the models differ in [output] quantiles alone. "replay" takes the states from
    `replayed`, the result of earlier rows (for a model without states, "replay" is "carry").
    Entries of the map that are also in `earlier_map`, with which the state was committed, may be
    left over from an earlier change: they are not refused if the state lacks their origin, or if
    the model has not changed (None: no entry is refused). Whatever is ignored in the state, or in
    `[state] init`, is added to `notes`. Raises StateError, naming both sides, for a table of
    another model or with other keys, and for a map that does not match the layers; ConfigError for
    "replay" without `replayed`.
    """
    config = bound.loaded.config.state
    notes = [] if notes is None else notes
    if committed is None:
        return _initial_table(bound, notes, on_change)
    load = partial(from_arrow, committed, bound.layout, bound.initial(), owner, same_pipeline=True)
    changed = is_of_another(committed, bound) and on_change != "error"
    if changed and on_change == "reset":
        return _all_reset(committed, bound, owner, notes)
    if changed and on_change == "replay" and bound.layout.states:
        return _with_states(committed, replayed, bound, owner)
    if earlier_map is not None:
        new = {name: o for name, o in config.map.items() if earlier_map.get(name) != o}
        check_origins(new, committed.schema, owner)
        for layer, origin in () if changed else new.items():
            if origin != layer and has_states(layer, bound.layout.states):
                raise StateError(
                    f"{owner}: [state] map: {layer!r} from {origin!r}: the model has not changed, "
                    f"so {layer!r} keeps its own state. Remove the entry"
                )
    if not changed:
        table = load()
        table.mark_clean()  # the next commit writes only later changes
        return table
    _check_map(config.map, bound)
    origins = carried_states(committed, bound.layout, config.map, owner, advice)
    notes.append(_carried(committed, bound, origins))
    table = load(mapping=origins, notes=notes)
    stays = all(name == origin for name, origin in origins.items())
    if stays and committed.schema.equals(bound.layout.schema()):
        table.mark_clean()  # the next commit writes the name of the new model
    return table


def _initial_table(bound: BoundPipeline, notes: list[str], on_change: OnChange) -> StateTable:
    """Return the state of `[state] init`, else an empty one."""
    config = bound.loaded.config.state
    if config.init is None:
        return StateTable(bound.layout, bound.initial())
    _check_map(config.map, bound)
    initial = bound.loaded.read_init(config.init)
    owner = f"[state] init: {config.init}"
    load = partial(from_arrow, initial, bound.layout, bound.initial(), owner, notes=notes)
    theirs = meta(initial, "moments") or meta(initial, "fingerprint")
    # [output] quantiles, which are not in states, do not count.
    same_model = theirs == (bound.layout.moments or bound.layout.fingerprint)
    held = rows_held(initial) if bound.layout.pending else 0
    if held and same_model and is_of_another(initial, bound):
        raise StateError(
            f"{owner}: [output] quantiles differ for {count(held, 'row')} held by [output] emit = "
            '"final". Finish the run that holds them, so that they are written, and then start '
            "from its state"
        )
    carries = on_change != "error" or same_model
    if carries and not config.map and is_of_another(initial, bound):
        if on_change == "reset":
            return _all_reset(initial, bound, owner, notes)
        if on_change == "replay" and bound.layout.states:
            raise ConfigError(_no_replay(f"{owner} comes without rows to read again"))
        origins = carried_states(initial, bound.layout, {}, owner)
        notes.append(_carried(initial, bound, origins))
        return load(mapping=origins)
    return load(mapping=config.map or None)


def taken_over(
    bound: BoundPipeline, table: StateTable, on_change: LiveChange, notes: list[str]
) -> Callable[[], StateTable]:
    """Return the call that hands the states of `table` over to another model, and cannot fail.

    The call returns `table` itself where states are carried unchanged, else a copy made beforehand.
    Raises what `starting_table` raises.
    """
    before = table.layout
    layout = replace(bound.layout, fingerprint=before.fingerprint, moments=before.moments)
    same = replace(layout, layers=before.layers) == before
    if on_change != "reset" and same and not bound.loaded.config.state.map:
        return partial(table.hand_over, bound.layout, bound.initial())
    copied = starting_table(bound, table.to_arrow(), "the state", notes, on_change=on_change)
    return lambda: copied


def is_of_another(table: pa.Table, bound: BoundPipeline) -> bool:
    """Return whether a state table belongs to another model."""
    return meta(table, "fingerprint") != bound.loaded.fingerprint


def _no_replay(why: str) -> str:
    return (
        f'[model] on_change = "replay": {why}. Replay is for `streamrnn run` into an output that '
        f"has read its source. Set {OTHER_WAYS}"
    )


def _with_states(
    committed: pa.Table, replayed: StateTable | None, bound: BoundPipeline, owner: str
) -> StateTable:
    """Return the streams of another model's table with their states from `replayed`.

    A stream that `replayed` lacks has the initial state, or is dropped if it is idle. Raises
    ConfigError without `replayed`.
    """
    if replayed is None:
        raise ConfigError(_no_replay("only a run reads the rows of earlier files again"))
    table = from_arrow(committed, bound.layout, bound.initial(), owner, {}, same_pipeline=True)
    origin = replayed.lookup(table.key_arrays())
    slots = np.flatnonzero(origin >= 0)
    states = {name: replayed.states(name)[origin[slots]] for name in bound.layout.states}
    table.scatter(slots, states)
    if bound.policy.idle is not None:
        idle = table.idle(bound.policy.idle)
        table.drop(idle[origin[idle] < 0])  # as the replay may have dropped it
    return table


def _all_reset(
    committed: pa.Table, bound: BoundPipeline, owner: str, notes: list[str]
) -> StateTable:
    """Return the streams of another model's table, reset to start again; their last times stay."""
    table = from_arrow(committed, bound.layout, bound.initial(), owner, {}, same_pipeline=True)
    slots = np.arange(table.streams)
    nothing = {
        name: (table.previous(name, slots)[0], np.zeros(len(slots), bool))
        for name in bound.layout.previous
    }
    steps, seen = np.zeros(len(slots), np.int64), table.last_times(slots)[1]
    table.advance(slots, steps, None, nothing, seen)
    table.wait(slots, steps, {})
    notes.append(
        f"{count(len(slots), 'stream')} of model {short_model(meta(committed, 'fingerprint'))} "
        f"start{'s' if len(slots) == 1 else ''} again with model "
        f"{short_model(bound.loaded.fingerprint)}"
    )
    return table


def _carried(table: pa.Table, bound: BoundPipeline, mapping: dict[str, str]) -> str:
    """Report from which model to which states are carried, and which states get another name."""
    renamed = [f"{name} from {origin}" for name, origin in mapping.items() if name != origin]
    return (
        f"the state was carried from model {short_model(meta(table, 'fingerprint'))} to "
        f"{short_model(bound.loaded.fingerprint)}"
        + (f" ([state] map: {', '.join(renamed)})" if renamed else "")
    )


def _check_map(mapping: dict[str, str], bound: BoundPipeline) -> None:
    # Some kinds of window carry no state of layers. Then any layer of the model is accepted, and
    # only waiting rows, steps, times and previous values are taken from the table.
    layers = {name.rsplit("/", 1)[0] for name in bound.layout.states}
    layers = layers or set(bound.loaded.model.layer_shapes())
    for layer in mapping:
        if not has_states(layer, layers):
            raise StateError(
                f"[state] map: {layer!r} is not a layer of this model that has a state: expected "
                f"one of {', '.join(sorted(layers))}"
            )
