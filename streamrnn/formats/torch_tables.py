"""The [[model.layers]] tables of a PyTorch state_dict, guessed from its arrays."""

import json
from collections.abc import Mapping

MAX_TABLES = 40
_GATES = {4: "LSTM", 3: "GRU", 1: "RNN"}

TensorShape = tuple[int, ...]


def tables_of(arrays: Mapping[str, TensorShape]) -> str:
    """Return a [[model.layers]] table for each prefix of names, in their order, ready to paste."""
    groups: dict[str, dict[str, TensorShape]] = {}
    for name, shape in arrays.items():
        prefix, _, short = name.rpartition(".")
        groups.setdefault(prefix, {})[short] = shape
    tables = [_table(prefix, shapes) for prefix, shapes in groups.items()]
    if len(tables) > MAX_TABLES:
        tables[MAX_TABLES:] = [f"# … and {len(tables) - MAX_TABLES} more"]
    return "\n".join(tables)


def _table(prefix: str, shapes: dict[str, TensorShape]) -> str:
    kind, comment = _kind(shapes)
    if kind is None:
        listed = ", ".join(f"{json.dumps(name)} {shape}" for name, shape in shapes.items())
        return f"# weights = {json.dumps(prefix)}: no layer can take {listed}"
    remark = f"  # {comment}" if comment else ""
    return f'[[model.layers]]\ntype = "{kind}"{remark}\nweights = {json.dumps(prefix)}'


def _kind(shapes: dict[str, TensorShape]) -> tuple[str | None, str]:
    """Return PyTorch's name of the layer with arrays of these names and shapes, and a remark."""
    weight = shapes.get("weight", ())
    if any(name.startswith("weight_hr") for name in shapes):  # proj_size
        return None, ""
    recurrent = next((name for name in shapes if name.startswith("weight_hh")), None)
    if recurrent is not None and len(shapes[recurrent]) == 2:
        rows, units = shapes[recurrent]
        kind = _GATES.get(rows // max(units, 1))
        if kind is None:
            return None, ""
        remark = 'add nonlinearity = "relu" if it has that' if kind == "RNN" else ""
        return (kind if "_l" in recurrent.removeprefix("weight") else f"{kind}Cell"), remark
    if "running_mean" in shapes:
        return "BatchNorm1d", ""
    if len(weight) == 1:
        return "LayerNorm", ""
    if len(weight) == 2:
        return ("Linear", "") if "bias" in shapes else ("Embedding", 'or "Linear" without a bias')
    return None, ""
