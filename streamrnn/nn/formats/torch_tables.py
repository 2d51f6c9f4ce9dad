"""Guess the [[model.layers]] tables of a PyTorch state_dict from its arrays.

The tables are in the order of the names, unless only another order makes each layer read as many
features as the previous one returns: a module's members need not be defined in the order of their
calls.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from streamrnn.nn.formats.tables import TORCH_CELLS

MAX_TABLES = 40
MAX_TRIED = 20_000
_GATES = {len(cell.gates): cell.name for cell in TORCH_CELLS.values()}

TensorShape = tuple[int, ...]
_Shapes = dict[str, TensorShape]


@dataclass(frozen=True)
class _Guess:
    """A table, and how many features its layer reads and returns: None for ids, or if unknown."""

    prefix: str
    kind: str
    remark: str
    reads: int | None
    returns: int | None

    def __str__(self) -> str:
        remark = f"  # {self.remark}" if self.remark else ""
        weights = json.dumps(self.prefix)
        return f'[[model.layers]]\ntype = "{self.kind}"{remark}\nweights = {weights}'


def tables_of(arrays: Mapping[str, TensorShape]) -> str:
    """Return a [[model.layers]] table for each prefix of names, ready to paste.

    Comments state what is guessed, and name arrays that no layer can take.
    """
    guesses, others = [], []
    for prefix, shapes in shapes_by_prefix(arrays).items():
        kinds = kinds_of(shapes)
        if kinds:
            guesses.append([_guess(prefix, kind, shapes) for kind in kinds])
        else:
            listed = ", ".join(f"{json.dumps(name)} {shape}" for name, shape in shapes.items())
            others.append(f"# weights = {json.dumps(prefix)}: no layer can take {listed}")
    chosen, note = _chain(guesses)
    tables = [f"{_gap(guess.prefix, arrays)}{guess}" for guess in chosen] + others
    if len(tables) > MAX_TABLES:
        tables[MAX_TABLES:] = [f"# … and {len(tables) - MAX_TABLES} more"]
    return "\n".join([*note, *tables])


def _gap(prefix: str, names: Collection[str]) -> str:
    """Return a comment if the member of a Sequential before this one has no weights."""
    parent, dot, index = prefix.rpartition(".")
    if not (index.isdecimal() and index.strip("0")):
        return ""
    before = f"{parent}{dot}{int(index) - 1}"
    if any(name.startswith(f"{before}.") for name in names):
        return ""
    return f"# {before} has no weights: if it is an activation, its table goes here.\n"


def shapes_by_prefix(arrays: Mapping[str, TensorShape]) -> dict[str, _Shapes]:
    """Return the shapes of arrays by prefix, in natural order, then by the rest of their names."""
    groups: dict[str, _Shapes] = {}
    for name in naturally_sorted(arrays):
        prefix, _, short = name.rpartition(".")
        groups.setdefault(prefix, {})[short] = arrays[name]
    return groups


def naturally_sorted(names: Collection[str]) -> list[str]:
    """Return names sorted with numbers as numbers: a.2 comes before a.10."""

    def parts(name: str) -> list[tuple[int, str]]:
        split = re.split(r"([0-9]{1,18})", name)
        return [(int(p), "") if p.isdecimal() and len(p) < 19 else (-1, p) for p in split]

    return sorted(names, key=parts)


def kinds_of(shapes: Mapping[str, TensorShape]) -> list[str]:
    """Return PyTorch's names of the layers that may have arrays of these names and shapes."""
    weight = shapes.get("weight", ())
    recurrent = next((name for name in shapes if name.startswith("weight_hh")), None)
    if recurrent is not None and len(shapes[recurrent]) == 2:
        kind = _recurrent(shapes, recurrent)
        return [kind] if kind else []
    if "running_mean" in shapes:
        return ["BatchNorm1d"]
    if len(weight) == 1:
        return ["LayerNorm"]
    if len(weight) == 2:
        return ["Linear"] if "bias" in shapes else ["Embedding", "Linear"]
    return []


def _recurrent(shapes: Mapping[str, TensorShape], name: str) -> str | None:
    projection = shapes.get(name.replace("_hh", "_hr"), ())
    rows, units = shapes[name]
    if len(projection) == 2:
        units = projection[1]
    kind = _GATES.get(rows // max(units, 1))
    if kind is None or (projection and kind != "LSTM"):
        return None
    return kind if "_l" in name.removeprefix("weight") else f"{kind}Cell"


def _guess(prefix: str, kind: str, shapes: Mapping[str, TensorShape]) -> _Guess:
    if kind in ("LayerNorm", "BatchNorm1d"):
        size = next(iter(shapes.values()), (None,))[:1]
        features = size[0] if size else None
        return _Guess(prefix, kind, "", features, features)
    if kind == "Embedding":
        remark = 'or "Linear" without a bias'
        return _Guess(prefix, kind, remark, None, shapes["weight"][1])
    if kind == "Linear":
        remark = "" if "bias" in shapes else 'or "Embedding"'
        return _Guess(prefix, kind, remark, shapes["weight"][1], shapes["weight"][0])
    remark = 'add nonlinearity = "relu" if the RNN has it' if kind.startswith("RNN") else ""
    inputs = [shape for name, shape in shapes.items() if name.startswith("weight_ih")]
    last = max(name.removesuffix("_reverse") for name in shapes if name.startswith("weight_hh"))
    both = 2 if f"{last}_reverse" in shapes else 1
    reads = inputs[0][1] if inputs and len(inputs[0]) == 2 else None
    return _Guess(prefix, kind, remark, reads, both * shapes[last][1])


def _chain(guesses: Sequence[Sequence[_Guess]]) -> tuple[list[_Guess], list[str]]:
    """Return one guess per group, in an order that fits, and comments on what was guessed."""
    by_name = [options[0] for options in guesses]
    if len(guesses) < 2:
        return by_name, []
    fitting = _fitting(guesses)
    if fitting is None:
        return by_name, [
            "# The order is taken from the names: no order was found in which each layer reads"
            " what the one before it returns."
        ]
    if [guess.prefix for guess in fitting] == [guess.prefix for guess in by_name]:
        return fitting, ["# The order is taken from the names, and the shapes fit."]
    return fitting, ["# The order is guessed from the shapes: the order of the names does not fit."]


def _fitting(guesses: Sequence[Sequence[_Guess]]) -> list[_Guess] | None:
    """Return the first order in which the shapes fit, trying the names' order first, or None."""
    if len(guesses) > MAX_TABLES:
        return None
    tried = 0
    stack: list[list[tuple[int, _Guess]]] = [[]]
    while stack and tried < MAX_TRIED:
        path = stack.pop()
        tried += 1
        if len(path) == len(guesses):
            return [guess for _, guess in path]
        taken = {i for i, _ in path}
        width = path[-1][1].returns if path else None
        following = [
            [*path, (i, guess)]
            for i, options in enumerate(guesses)
            if i not in taken
            for guess in options
            if (not path or guess.reads == width)
        ]
        ids_first = sorted(following, key=lambda p: bool(p[-1][1].reads)) if not path else following
        stack += reversed(ids_first)
    return None
