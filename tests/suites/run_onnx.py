"""onnx's own backend tests against load_model: what loads gives onnx's numbers, or is refused.

    python tests/suites/run_onnx.py [--list OUTCOME]

The tests are those that the installed onnx package ships; nothing of them is copied here. Prints a
row per set: how many passed, were refused at load, were refused at the call (a StreamRNNError that
comes late), gave wrong numbers, or crashed (any other exception). Models of claimed operators only
and the others are counted apart. `--list wrong` also names the tests of one outcome.
"""

import argparse
import collections
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test import loader

import streamrnn
from streamrnn.errors import StreamRNNError
from streamrnn.plugins.onnx.evaluate import Evaluator  # noqa: F401 (fills the table of operators)
from streamrnn.plugins.onnx.graph import OPERATORS
from streamrnn.plugins.onnx.recurrent import RECURRENT

SETS = ("node", "simple", "pytorch-converted", "pytorch-operator")
OUTCOMES = ("passed", "refused at load", "refused at call", "wrong", "crash")
Arrays = list[Any]


def cases(kind: str) -> Iterator[tuple[str, Any, Any, list[tuple[Arrays, Arrays]], float, float]]:
    """Yield name, model, its file (None: in memory only), data sets, rtol and atol."""
    for case in loader.load_model_tests(kind=kind):
        if case.model is not None:
            yield case.name, case.model, None, list(case.data_sets), case.rtol, case.atol
        else:
            folder = Path(case.model_dir)
            path = folder / "model.onnx"
            data = [_data_set(found) for found in sorted(folder.glob("test_data_set_*"))]
            yield case.name, onnx.load(path), path, data, case.rtol, case.atol


def _data_set(folder: Path) -> tuple[Arrays, Arrays]:
    found = []
    for kind in ("input", "output"):
        count = len(list(folder.glob(f"{kind}_*.pb")))
        files = [folder / f"{kind}_{i}.pb" for i in range(count)]
        found.append([_tensor(file) for file in files])
    return found[0], found[1]


def _tensor(file: Path) -> Any:
    return numpy_helper.to_array(onnx.load_tensor(file))


def claimed(model: Any) -> bool:
    """Return whether every node is an operator that the loader has."""
    known = {*OPERATORS, *RECURRENT, "Constant"}
    return all(n.op_type in known and n.domain in ("", "ai.onnx") for n in model.graph.node)


def outcome(model: Any, data: Sequence[tuple[Arrays, Arrays]], rtol: float, atol: float) -> str:
    """Return one of OUTCOMES for a model and its data sets."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "m.onnx"
            path.write_bytes(model.SerializeToString())
            loaded: Any = streamrnn.load_model(path)
    except StreamRNNError:
        return "refused at load"
    except Exception:  # noqa: BLE001 (a crash is what is counted)
        return "crash"
    stored = {tensor.name for tensor in model.graph.initializer}
    names = [value.name for value in model.graph.input if value.name not in stored]
    try:
        made = [list(loaded(dict(zip(names, x, strict=False))).values()) for x, _ in data]
    except StreamRNNError:
        return "refused at call"
    except Exception:  # noqa: BLE001
        return "crash"
    same = (
        _same(a, b, rtol, atol)
        for ours, (_, theirs) in zip(made, data, strict=True)
        for a, b in zip(ours, theirs, strict=True)
    )
    return "passed" if all(same) else "wrong"


def _same(ours: Any, theirs: Any, rtol: float, atol: float) -> bool:
    theirs = np.asarray(theirs)
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return False
    return bool(np.allclose(ours, theirs, rtol=rtol, atol=max(atol, 1e-6), equal_nan=True))


def run(kind: str) -> dict[bool, dict[str, list[str]]]:
    """Return the names of the tests of a set by outcome, of claimed operators (True) and others."""
    found: dict[bool, dict[str, list[str]]] = {
        known: collections.defaultdict(list) for known in (True, False)
    }
    for name, model, _, data, rtol, atol in cases(kind):
        found[claimed(model)][outcome(model, data, rtol, atol)].append(name)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", choices=OUTCOMES, help="also name the tests of this outcome")
    listed = parser.parse_args().list
    print(f"onnx {onnx.__version__}, opset {onnx.defs.onnx_opset_version()}")
    print("| set | operators | " + " | ".join(OUTCOMES) + " |")
    print("| --- | --- |" + " --- |" * len(OUTCOMES))
    warnings.simplefilter("ignore")
    for kind in SETS:
        for known, found in run(kind).items():
            counts = " | ".join(str(len(found[name])) for name in OUTCOMES)
            print(f"| {kind} | {'claimed' if known else 'other'} | {counts} |", flush=True)
            for name in found[listed] if listed else []:
                print(f"  {name}")


if __name__ == "__main__":
    main()
