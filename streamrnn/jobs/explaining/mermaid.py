"""A pipeline as a flowchart in the language of Mermaid."""

from collections.abc import Mapping, Sequence
from typing import Any

from streamrnn.base.display import count, listed, location
from streamrnn.jobs.explaining.explain import explain
from streamrnn.nn.models.graph import Graph
from streamrnn.nn.models.mermaid import box, box_text, graph_lines
from streamrnn.stream.scoring import LoadedPipeline


def mermaid(loaded: LoadedPipeline) -> str:
    """Return source, features, window, layers, outputs, sink and state as a flowchart.

    Facts are those of `explain`, which raises what it raises.
    """
    plan, config = explain(loaded), loaded.config
    source, sink = config.source, config.sink
    first, last = _ends(loaded.model.graph)
    features = [feature.name for feature in source.features] + list(source.time_features)
    lines = [
        "flowchart TB",
        _store("source", "source", location(source.path or "process()"), *_files(plan)),
        box("features", "features", listed(features), *_keys(loaded)),
        box(
            "window",
            f"window: {config.window.kind}",
            f"{config.window.lanes:,} lanes × {config.window.steps:,} steps",
        ),
        f'subgraph model["{box_text("model", location(config.model.path))}"]',
        *(f"    {line}" for line in graph_lines(loaded.model)),
        "end",
        box("outputs", "outputs", listed(loaded.names), f"emit: {config.output.emit}"),
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


def _ends(graph: Graph) -> tuple[list[str], list[str]]:
    """Return the boxes of a model's inputs and of its outputs."""
    names = {id(node): f"layer{index}" for index, node in enumerate(graph.nodes)}
    first, last = (
        list(dict.fromkeys(names[id(symbol.node)] for symbol in symbols))
        for symbols in (graph.inputs, graph.outputs)
    )
    return first, last


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


def _store(name: str, *facts: str) -> str:
    return f'{name}[("{box_text(*facts)}")]'
