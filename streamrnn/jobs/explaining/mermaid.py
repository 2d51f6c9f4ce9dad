"""A pipeline as a flowchart in the language of Mermaid, which GitHub and many wikis draw.

Syntax: https://mermaid.js.org/syntax/flowchart.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from streamrnn.base.display import count, listed, location
from streamrnn.jobs.explaining.explain import explain
from streamrnn.nn.models import Model, calls_of
from streamrnn.stream.scoring import LoadedPipeline

_SPECIAL = set('"#&<>`\\%;')
"""Characters with a meaning in a quoted label, or before the labels are read."""


def mermaid(loaded: LoadedPipeline) -> str:
    """Return source, features, window, layers, outputs, sink and state as a flowchart.

    Facts are those of `explain`, which raises what it raises.
    """
    plan, config = explain(loaded), loaded.config
    source, sink = config.source, config.sink
    graph, first, last = _model(loaded.model)
    features = [feature.name for feature in source.features] + list(source.time_features)
    lines = [
        "flowchart TB",
        _store("source", "source", location(source.path or "process()"), *_files(plan)),
        _box("features", "features", listed(features), *_keys(loaded)),
        _box(
            "window",
            f"window: {config.window.kind}",
            f"{config.window.lanes:,} lanes × {config.window.steps:,} steps",
        ),
        f'subgraph model["{_label("model", location(config.model.path))}"]',
        *(f"    {line}" for line in graph),
        "end",
        _box("outputs", "outputs", listed(loaded.names), f"emit: {config.output.emit}"),
        _store("sink", "sink", location(sink.path or "process()"), *_commit(plan)),
        "source --> features --> window",
        *(f"window --> {name}" for name in first),
        *(f"{name} --> outputs" for name in last),
        "outputs --> sink",
        *_state(plan),
    ]
    if sink.folder is not None and source.bad == "reject":
        rejects = _store("rejects", "rejects", location(sink.rejects or ""))
        lines += [rejects, "features -->|rejected rows| rejects"]
    return "\n".join([lines[0], *(f"    {line}" for line in lines[1:])])


def _model(model: Model) -> tuple[list[str], list[str], list[str]]:
    """Return lines with a box for each call of a layer; the boxes of inputs and of outputs."""
    calls, graph = calls_of(model.graph), model.graph
    lines = [
        _box(
            f"layer{index}",
            call.name,
            type(call.layer).__name__,
            call.shape,
            count(call.layer.count_params(), "parameter"),
        )
        for index, call in enumerate(calls)
    ]
    lines += [
        f"layer{read} --> layer{index}" for index, call in enumerate(calls) for read in call.inputs
    ]
    names = {id(node): f"layer{index}" for index, node in enumerate(graph.nodes)}
    first, last = (
        list(dict.fromkeys(names[id(symbol.node)] for symbol in symbols))
        for symbols in (graph.inputs, graph.outputs)
    )
    return lines, first, last


def _files(plan: Mapping[str, Any]) -> Sequence[str]:
    if "files" not in plan:
        return ()
    new = f", {plan['new_files']:,} of them new" if "new_files" in plan else ""
    return (f"{count(plan['files'], 'file')}{new}", count(plan["rows"], "row"))


def _keys(loaded: LoadedPipeline) -> Sequence[str]:
    source = loaded.config.source
    keys = f"key: {', '.join(source.key)}"
    return (keys,) if source.time is None else (keys, f"time: {source.time}")


def _commit(plan: Mapping[str, Any]) -> Sequence[str]:
    resume = plan.get("resume")
    return () if resume is None else (f"commit {resume['commit']}", count(resume["rows"], "row"))


def _state(plan: Mapping[str, Any]) -> Sequence[str]:
    """Return the state of the streams, which the model reads and the sink stores."""
    size = plan.get("state_bytes_per_stream")
    if size is None:
        return ()
    streams = plan["memory"]["streams"]
    facts = (count(streams, "stream"), f"{size:,} bytes each")
    return (_store("state", "state", *facts), "state <--> model", "state -.- sink")


def _box(name: str, *facts: str) -> str:
    return f'{name}["{_label(*facts)}"]'


def _store(name: str, *facts: str) -> str:
    return f'{name}[("{_label(*facts)}")]'


def _label(*facts: str) -> str:
    return "<br/>".join(map(_escaped, facts))


def _escaped(text: str) -> str:
    """Write each character with a meaning as Mermaid's entity, and no character is a line break."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    return "".join(f"#{ord(letter)};" if letter in _SPECIAL else letter for letter in shown)
