"""Every operator that the loader claims runs: the onnx package's tests, and what cannot is refused.

All of these tests, with counts: tests/suites/run_onnx.py.
"""

import collections
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selection import slow

onnx: Any = pytest.importorskip("onnx", reason="needs the onnx extra")

from contracts.declared import holding  # noqa: E402
from contracts.rows_activations import ACTIVATIONS  # noqa: E402
from onnx import TensorProto, helper  # noqa: E402
from plugins.onnx import onnx_graphs  # noqa: E402
from suites import run_onnx  # noqa: E402

import streamrnn  # noqa: E402
from streamrnn.errors import ShapeError, StreamRNNError, UnsupportedError  # noqa: E402
from streamrnn.plugins.onnx import export_call  # noqa: E402
from streamrnn.plugins.onnx.graph import NAMES, OPERATORS  # noqa: E402
from streamrnn.plugins.onnx.load import MAX_OPSET, QUANTIZED  # noqa: E402
from streamrnn.plugins.onnx.recurrent import RECURRENT  # noqa: E402

FLOAT = TensorProto.FLOAT
OTHERWISE_TESTED = {"Cast", "CastLike", "DequantizeLinear", "Not", "Pow", "QuantizeLinear"}
"""Run in test_onnx_operators_oracle.py: onnx tests them with types or opsets that are refused."""


def one_node_cases() -> Iterator[tuple[str, Any]]:
    """Yield each test of one node of a claimed operator, with the operator."""
    for case in run_onnx.cases("node"):
        nodes = case[1].graph.node
        if len(nodes) == 1 and run_onnx.claimed(case[1]):
            yield nodes[0].op_type, case


@pytest.fixture(scope="module")
def outcomes() -> dict[str, collections.Counter[str]]:
    """How many tests of each operator have which outcome; a few of an operator suffice."""
    found: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for op, (_, model, _, data, rtol, atol) in one_node_cases():
        if found[op]["passed"] < 3:
            found[op][run_onnx.outcome(model, data, rtol, atol)] += 1
    return found


@pytest.mark.filterwarnings("ignore")
@slow
def test_every_claimed_operator_runs(outcomes: dict[str, collections.Counter[str]]) -> None:
    """Each has a test of onnx that passes, and none that is wrong or refused too late.

    Slow: the node tests of onnx itself.
    """
    claimed = {*OPERATORS, *RECURRENT}
    assert {op for op in claimed if not outcomes[op]["passed"]} == OTHERWISE_TESTED
    late = ("refused at call", "wrong", "crash")
    assert {op: found for op, found in outcomes.items() if any(found[k] for k in late)} == {}


def written_operators() -> set[str]:
    """The operators in the modules of the exporter."""
    room = Path(export_call.__file__).parent
    text = "".join(path.read_text() for path in room.glob("export*.py"))
    calls = re.findall(r'(?:\.add|_pairwise|_extreme|\.node)\(\s*"(\w+)"', text)
    activations = {row.operator for row in NAMES.values() if row.operator in OPERATORS}
    return {*calls, *activations, *RECURRENT}


def test_what_the_exporter_writes_is_read_again() -> None:
    """Clip, Erf, Exp, Max, Min, PRelu and Sqrt among them, of models of several seeds."""
    written = written_operators()
    assert {"Clip", "Erf", "Exp", "Max", "Min", "PRelu", "Sqrt"} <= written
    assert written - {*OPERATORS, *RECURRENT} == set()


def test_every_activation_is_written_or_its_row_says_why_not() -> None:
    named = set(holding(ACTIVATIONS, "named"))
    assert named & export_call.WRITTEN == named & set(holding(ACTIVATIONS, "onnx"))


def test_the_newest_opset_of_the_package_is_read() -> None:
    """What onnx's helper writes by default, up to the newest version that was looked at."""
    assert min(onnx.defs.onnx_opset_version(), 28) <= MAX_OPSET


def loaded(
    node: Any, tmp_path: Path, constants: dict[str, Any] | None = None, **inputs: Any
) -> Any:
    given = inputs or {"x": (FLOAT, ["batch", 3])}
    made = onnx_graphs.model([node], given, [node.output[0]], constants or {}, opset=18)
    path = tmp_path / "m.onnx"
    path.write_bytes(made.SerializeToString())
    return streamrnn.load_model(path)


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "training": (
        helper.make_node("Dropout", ["x", "", "on"], ["y"], name="n"),
        {"on": np.array(True)},
        "training_mode is set",
    ),
    "computed training": (
        helper.make_node("Dropout", ["x", "", "x"], ["y"], name="n"),
        {},
        "training_mode is set, or computed",
    ),
    "running statistics": (
        helper.make_node("BatchNormalization", ["x", *"wwww"], ["y", "m", "v"], name="n"),
        {"w": np.ones(3, np.float32)},
        "only its first output is supported, not 'm'",
    ),
    "batch statistics": (
        helper.make_node("BatchNormalization", ["x", *"wwww"], ["y"], name="n", training_mode=1),
        {"w": np.ones(3, np.float32)},
        "training_mode is set",
    ),
    "indices": (
        helper.make_node("MaxPool", ["x"], ["y", "where"], name="n", kernel_shape=[2]),
        {},
        "indices as a second output",
    ),
    "a type": (helper.make_node("Cast", ["x"], ["y"], name="n", to=11), {}, "to=11"),
    "a mode": (
        helper.make_node("Pad", ["x", "p"], ["y"], name="n", mode="wrap"),
        {"p": np.array([0, 1, 0, 1])},
        "mode='wrap' is not supported",
    ),
    "an exponent": (
        helper.make_node("Pow", ["x", "e"], ["y"], name="n"),
        {"e": np.array(0.3, np.float32)},
        r"multiples of 0\.5",
    ),
    "a computed exponent": (
        helper.make_node("Pow", ["x", "x"], ["y"], name="n"),
        {},
        "its exponent is computed",
    ),
    "the least exponent": (
        helper.make_node("Pow", ["x", "e"], ["y"], name="n"),
        {"e": np.array(-(2**63))},
        r"multiples of 0\.5",
    ),
    "a constant power": (
        helper.make_node("Pow", ["w", "e"], ["y"], name="n"),
        {"w": np.array(1e4, np.float32), "e": np.array([0, 0.25], np.float32)},
        r"multiples of 0\.5",
    ),
    "constant blocks": (
        helper.make_node("DequantizeLinear", ["w", "s"], ["y"], name="n", axis=0, block_size=2),
        {"w": np.ones((4, 2), np.int8), "s": np.ones((2, 2), np.float32)},
        "block_size",
    ),
    "a scale below 0": (
        helper.make_node("Celu", ["x"], ["y"], name="n", alpha=-1.0),
        {},
        r"alpha=-1\.0 is not supported: expected above 0",
    ),
    "blocks": (
        helper.make_node("DequantizeLinear", ["x", "s"], ["y"], name="n", block_size=2),
        {"s": np.array(0.5, np.float32)},
        "block_size",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_run_is_refused_at_load(name: str, tmp_path: Path) -> None:
    node, constants, expected = REFUSED[name]
    with pytest.raises(UnsupportedError, match=rf"node 'n' \({node.op_type}\).*{expected}"):
        loaded(node, tmp_path, constants)


@pytest.mark.parametrize("op", sorted(QUANTIZED))
def test_integer_arithmetic_is_refused_by_the_name_of_its_operator(op: str, tmp_path: Path) -> None:
    """Before the type of its weights is: the operator is the reason."""
    node = helper.make_node(op, ["x", "w"], ["y"], name="n", domain="com.microsoft")
    with pytest.raises(UnsupportedError, match=rf"node 'n' \({op}\): the graph is quantized"):
        loaded(node, tmp_path, {"w": np.ones((3, 2), np.uint8)})


def test_a_loop_is_refused_with_advice(tmp_path: Path) -> None:
    body = helper.make_graph([], "body", [], [])
    node = helper.make_node("Loop", ["", "", "x"], ["y"], name="n", body=body)
    with pytest.raises(UnsupportedError, match=r"\(Loop\).*'body' is a graph.*\.keras file"):
        loaded(node, tmp_path)


@pytest.mark.parametrize(
    ("node", "constants"),
    [
        (helper.make_node("Range", ["a", "b", "c"], ["y"]),
         {"a": np.array(0), "b": np.array(2**40), "c": np.array(1)}),
        (helper.make_node("Tile", ["w", "r"], ["y"]),
         {"w": np.ones(3, np.float32), "r": np.array([2**40])}),
        (helper.make_node("Pad", ["w", "p"], ["y"]),
         {"w": np.ones(3, np.float32), "p": np.array([2**40, 0])}),
        (helper.make_node("MaxPool", ["w"], ["y"], kernel_shape=[2], pads=[2**40, 0]),
         {"w": np.ones((1, 1, 3), np.float32)}),
        (helper.make_node("AveragePool", ["w"], ["y"], kernel_shape=[2**20], pads=[2**20, 2**20]),
         {"w": np.ones((1, 1, 3), np.float32)}),
        (helper.make_node("Where", ["a", "b", "c"], ["y"]),
         {"a": np.ones((2**13, 1, 1), bool), "b": np.ones((2**13, 1), np.float32),
          "c": np.ones(2**13, np.float32)}),
    ],
    ids=lambda value: getattr(value, "op_type", ""),
)  # fmt: skip
def test_a_hostile_node_makes_no_huge_array(
    node: Any, constants: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ShapeError, match="would make an array of shape"):
        loaded(node, tmp_path, constants)


@pytest.mark.parametrize(
    ("node", "constants", "said"),
    [
        (helper.make_node("Split", ["a", "b"], ["y", "z"]),
         {"a": np.ones(5), "b": np.array([2, 2])}, "5 cannot have 2 parts of the sizes .2, 2."),
        (helper.make_node("Split", ["a", "b"], ["y", "z"]),
         {"a": np.ones(2), "b": np.array([2])}, "2 cannot have 2 parts"),
        (helper.make_node("Pad", ["a", "b"], ["y"]),
         {"a": np.ones(3), "b": np.array([-2, -2])}, r"shape \(-1,\); a size is negative"),
        (helper.make_node("Pad", ["a", "b"], ["y"]),
         {"a": np.ones(2), "b": np.array([5, -4])}, r"shape \(-2,\); a size is negative"),
        (helper.make_node("Tile", ["a", "b"], ["y"]),
         {"a": np.ones(3), "b": np.array([-1])}, r"shape \(-3,\); a size is negative"),
        (helper.make_node("Relu", ["a"], ["y"]),
         {"a": np.array([2**25 + 1])}, "expected float32, received int64"),
        (helper.make_node("Gemm", ["a", "b", "c"], ["y"]),
         {"a": np.ones((1, 3)), "b": np.ones((3, 2)), "c": np.ones((2, 1))}, "cannot take inputs"),
        (helper.make_node("Range", ["a", "b", "a"], ["y"]),
         {"a": np.array(1.0), "b": np.array(np.inf)}, "cannot take inputs"),
    ],
    ids=lambda value: getattr(value, "op_type", ""),
)  # fmt: skip
def test_inputs_that_do_not_fit_are_refused(
    node: Any, constants: dict[str, Any], said: str, tmp_path: Path
) -> None:
    kinds = {name: "f4" if a.dtype.kind == "f" else "i8" for name, a in constants.items()}
    with pytest.raises(StreamRNNError, match=said):
        loaded(node, tmp_path, {name: a.astype(kinds[name]) for name, a in constants.items()})


def test_a_graph_that_makes_too_many_values_is_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Expand", ["x", "size"], ["a"]),
        *[helper.make_node("Identity", ["a"], [name]) for name in "bc"],
    ]
    dims = {"x": (FLOAT, ["batch"])}
    made = onnx_graphs.model(nodes, dims, ["c"], {"size": np.array([1 << 24])})
    path = tmp_path / "m.onnx"
    path.write_bytes(made.SerializeToString())
    with pytest.raises(ShapeError, match="too many values from its inputs; pass fewer rows"):
        streamrnn.load_model(path)(np.ones(1, np.float32))


def test_the_largest_exponent_of_eight_bits(tmp_path: Path) -> None:
    node = helper.make_node("Pow", ["x", "e"], ["y"])
    model = loaded(node, tmp_path, {"e": np.array(64, np.int8)})
    x = np.float32([[1, 1.5, -0.5]])
    np.testing.assert_allclose(model(x)["y"], x**64, rtol=1e-5)


def test_windows_of_eight_bits_are_padded_with_the_least_number(tmp_path: Path) -> None:
    scales = {"s": np.array(0.5, np.float32), "z": np.array(3, np.int8)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("MaxPool", ["q"], ["p"], kernel_shape=[3], pads=[1, 1]),
        helper.make_node("DequantizeLinear", ["p", "s", "z"], ["y"]),
    ]
    made = onnx_graphs.model(nodes, {"x": (FLOAT, ["batch", 1, "time"])}, ["y"], scales)
    path = tmp_path / "m.onnx"
    path.write_bytes(made.SerializeToString())
    y = streamrnn.load_model(path)(np.float32([[[-9, -8, -7.5, -6]]]))["y"]
    np.testing.assert_array_equal(y, np.float32([[[-8, -7.5, -6, -6]]]))


def test_windows_that_cannot_be_are_refused(tmp_path: Path) -> None:
    for attributes in ({"strides": [0]}, {"dilations": [0]}, {"kernel_shape": [9]}):
        node = helper.make_node("MaxPool", ["x"], ["y"], **{"kernel_shape": [2], **attributes})
        model = loaded(node, tmp_path, x=(FLOAT, ["batch", 3, "time"]))
        with pytest.raises(ShapeError):
            model(np.ones((1, 3, 5), np.float32))


def test_outputs_with_other_steps_than_the_input_are_not_run_in_a_pipeline(tmp_path: Path) -> None:
    """Windows without padding return fewer steps: no row of the log is theirs."""
    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[3])
    model = loaded(node, tmp_path, x=(FLOAT, ["batch", 3, "time"]))
    assert model(np.ones((1, 3, 5), np.float32))["y"].shape == (1, 3, 3)
    with pytest.raises(streamrnn.errors.ModelMismatchError, match="has another number of steps"):
        model.layer.layout  # noqa: B018


def test_channels_before_time_are_found(tmp_path: Path) -> None:
    """As PyTorch's convolutions have them: (batch, channels, time)."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[2, 0])
    weights = np.random.default_rng(0).normal(0, 1, (4, 3, 3)).astype(np.float32)
    model = loaded(node, tmp_path, {"w": weights}, x=(FLOAT, ["batch", 3, "time"]))
    x = np.random.default_rng(1).normal(0, 1, (2, 7, 3)).astype(np.float32)
    (made,) = streamrnn.models.SequenceRunner(model).run([x])
    (called,) = model(np.ascontiguousarray(x.transpose(0, 2, 1))).values()
    np.testing.assert_array_equal(np.stack(made), called.transpose(0, 2, 1))
