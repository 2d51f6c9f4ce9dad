"""Flowcharts in the language of Mermaid, which GitHub, Jupyter and many wikis draw.

Syntax: https://mermaid.js.org/syntax/flowchart.html
"""

from typing import TYPE_CHECKING

from streamrnn.base.display import count
from streamrnn.nn.models.calls import calls_of

if TYPE_CHECKING:
    from streamrnn.nn.models.model import Model

_SPECIAL = set('"#&<>`\\%;')
"""Characters with a meaning in a quoted label, or before the labels are read."""


def model_mermaid(model: "Model") -> str:
    """Return the graph of a built model as a flowchart, as of `streamrnn summary --mermaid`.

    A box for each call of a layer has its name, class, output shape and parameters. Raises
    ConfigError if the model has no graph yet.
    """
    return "\n".join(["flowchart TB", *(f"    {line}" for line in graph_lines(model))])


def graph_lines(model: "Model") -> list[str]:
    """Return a box for each call, `layer0` and so on, then the arrows from what it reads."""
    calls = calls_of(model.graph)
    boxes = [
        box(
            f"layer{index}",
            call.name,
            type(call.layer).__name__,
            call.shape,
            count(call.layer.count_params(), "parameter"),
        )
        for index, call in enumerate(calls)
    ]
    arrows = (f"layer{read} --> layer{at}" for at, call in enumerate(calls) for read in call.inputs)
    return [*boxes, *arrows]


def box(name: str, *facts: str) -> str:
    """Return a box with a line of text for each fact."""
    return f'{name}["{box_text(*facts)}"]'


def box_text(*facts: str) -> str:
    """Return a quoted label's text, without characters that mean something to Mermaid."""
    return "<br/>".join(map(_escaped, facts))


def _escaped(text: str) -> str:
    """Write each character with a meaning as Mermaid's entity, and no character is a line break."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    return "".join(f"#{ord(letter)};" if letter in _SPECIAL else letter for letter in shown)
