"""Run Keras's own test files against streamrnn, and print counts for each file.

    git clone --depth 1 https://github.com/keras-team/keras
    python tests/suites/run_keras.py keras [layers/rnn/lstm …] [--list]

A test counts as *passed*; *not claimed*: it trains on a backend of Keras, needs dtype policies,
sparse or ragged tensors, quantization or export, or Keras skips it on NumPy; *named*: its reason
stands in keras_reasons.toml, or it uses a class that streamrnn has not; *words*: refused as Keras
does, with other words; *different*: the
rest. `--list` prints all tests that did not pass, with the message.
"""

import argparse
import os
import re
import sys
import tomllib
import traceback
import unittest
import warnings
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "numpy"

FILES = [
    "layers/rnn/lstm",
    "layers/rnn/gru",
    "layers/rnn/simple_rnn",
    "layers/rnn/rnn",
    "layers/rnn/bidirectional",
    "layers/rnn/stacked_rnn_cells",
    "layers/rnn/time_distributed",
    "layers/rnn/dropout_rnn_cell",
    "models/sequential",
    "models/functional",
    "models/model",
    "layers/core/embedding",
    "layers/core/dense",
    "layers/core/masking",
    "layers/core/identity",
    "layers/core/input_layer",
    "layers/regularization/dropout",
    "layers/regularization/spatial_dropout",
    "layers/regularization/alpha_dropout",
    "layers/regularization/gaussian_dropout",
    "layers/regularization/gaussian_noise",
    "layers/regularization/activity_regularization",
    "layers/normalization/batch_normalization",
    "layers/normalization/layer_normalization",
    "layers/normalization/rms_normalization",
    "layers/normalization/unit_normalization",
    "layers/normalization/group_normalization",
    "layers/reshaping/flatten",
    "layers/reshaping/reshape",
    "layers/reshaping/permute",
    "layers/reshaping/repeat_vector",
    "layers/reshaping/cropping1d",
    "layers/reshaping/zero_padding1d",
    "layers/reshaping/up_sampling1d",
    "layers/merging/merging",
    "layers/activations/activation",
    "layers/activations/elu",
    "layers/activations/leaky_relu",
    "layers/activations/prelu",
    "layers/activations/relu",
    "layers/activations/softmax",
    "layers/convolutional/conv",
    "layers/convolutional/depthwise_conv",
    "layers/convolutional/separable_conv",
    "layers/pooling/max_pooling",
    "layers/pooling/average_pooling",
    "layers/pooling/global_max_pooling",
    "layers/pooling/global_average_pooling",
    "layers/layer",
    "activations/activations",
    "initializers/constant_initializers",
    "initializers/random_initializers",
    "layers/preprocessing/normalization",
    "layers/preprocessing/rescaling",
    "layers/preprocessing/category_encoding",
    "layers/preprocessing/string_lookup",
    "layers/preprocessing/integer_lookup",
    "layers/preprocessing/index_lookup",
]
COLUMNS = ("passed", "not claimed", "named", "words", "different")
_NOT_CLAIMED = re.compile(
    "quantiz|sparse|ragged|lora|int8|int4|gptq|awq|float8|float16|mixed|autocast|dtype polic|"
    "tf_data|tf\\.data|tensorflow|export|distribution_s|remat|jit|stateless_call|symbolic_|"
    "add_loss|losses|metric|trainer|_fit|training_|gradient|masked_loss|"
    "optree|sharding|dtype must be|int16|uint8|float64|cudnn|seed_generators",
    re.IGNORECASE,
)


class Outcome(unittest.TestResult):
    """Sorts what happened to each test."""

    def __init__(self, file: str, reasons: dict[str, dict[str, str]]) -> None:
        super().__init__()
        self.file = file
        self.reasons = reasons
        self.found: list[tuple[str, str, str]] = []

    def addSuccess(self, test: unittest.TestCase) -> None:
        self.found.append((_name(test), "passed", ""))

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self.found.append((_name(test), "not claimed", reason))

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        self._add(test, err)

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        self._add(test, err)

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:
        self.found.append((_name(test), "passed", ""))

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self.found.append((_name(test), "different", "unexpected success"))

    def _add(self, test: unittest.TestCase, err: Any) -> None:
        name, message = _name(test), f"{err[0].__name__}: {err[1]}"
        if err[0].__name__ == "Skipped":  # by pytest.skip
            self.found.append((name, "not claimed", message))
            return
        for pattern, reason in self.reasons.get(self.file, {}).items():
            if fnmatch(name, pattern):
                self.found.append((name, "named", reason))
                return
        if err[0].__name__ == "NotHere" and not _NOT_CLAIMED.search(f"{name} {message}"):
            self.found.append((name, "named", f"streamrnn has no {err[1]}"))
            return
        self.found.append((name, _column(name, message, err), _where(err) + message))


def _column(name: str, message: str, err: Any) -> str:
    numbers = "Mismatched elements" in message or "not equal to tolerance" in message.lower()
    if not numbers and _NOT_CLAIMED.search(f"{name} {message[:400]}"):
        return "not claimed"
    return "words" if "does not match" in message and '" does not' in message else "different"


def _where(err: Any) -> str:
    frames = [f for f in traceback.extract_tb(err[2]) if f.filename.endswith("_test.py")]
    return f"line {frames[-1].lineno}: " if frames else ""


def _name(test: unittest.TestCase) -> str:
    return test.id().rpartition(".")[2]


def tests_of(names: dict[str, Any], base: type) -> unittest.TestSuite:
    """Return the tests of a file, without those that Keras skips on NumPy."""
    suite = unittest.TestSuite()
    for cls in names.values():
        if isinstance(cls, type) and issubclass(cls, unittest.TestCase) and cls is not base:
            if cls.__module__ != names["__name__"]:
                continue
            for test in unittest.defaultTestLoader.getTestCaseNames(cls):
                _apply_marks(cls, test)
                suite.addTest(cls(test))
    return suite


def _apply_marks(cls: type, test: str) -> None:
    method = getattr(cls, test)
    for mark in getattr(method, "pytestmark", []):
        why = mark.kwargs.get("reason", mark.name)
        skips = mark.name in ("requires_trainable_backend", "requires_tpu", "skip")
        if skips or (mark.name == "skipif" and mark.args and mark.args[0]):
            setattr(cls, test, unittest.skip(why)(method))


def run(file: str, root: Path, reasons: dict[str, dict[str, str]]) -> Outcome:
    """Run one test file."""
    from keras_case import Case
    from keras_shim import load_test_file

    outcome = Outcome(file, reasons)
    path = root / f"keras/src/{file}_test.py"
    if not path.exists():
        return outcome
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            names = load_test_file(path)
        except Exception as error:  # noqa: BLE001 - counted as different
            lacks = type(error).__name__ == "NotHere"
            message = f"streamrnn has no {error}" if lacks else f"{type(error).__name__}: {error}"
            outcome.found.append(("(import)", "named" if lacks else "different", message))
            return outcome
        tests_of(names, Case).run(outcome)
    return outcome


def main() -> None:
    """Parse arguments, run, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path, help="a checkout of keras-team/keras")
    parser.add_argument("files", nargs="*", default=FILES, help="as layers/rnn/lstm")
    parser.add_argument("--list", action="store_true", help="print tests that did not pass")
    options = parser.parse_args()
    sys.path.insert(0, str(options.checkout))
    reasons = tomllib.loads((Path(__file__).parent / "keras_reasons.toml").read_text())
    print("| file |", " | ".join(COLUMNS), "|\n|---|" + "---|" * len(COLUMNS))
    sums = dict.fromkeys(COLUMNS, 0)
    for file in options.files:
        found = run(file, options.checkout, reasons).found
        counts = {c: sum(column == c for _, column, _ in found) for c in COLUMNS}
        sums = {c: sums[c] + counts[c] for c in COLUMNS}
        print(f"| {file} |", " | ".join(str(n) for n in counts.values()), "|", flush=True)
        if options.list:
            for name, column, message in found:
                if column != "passed":
                    print(f"    {column:12} {name}: {' '.join(message.split())[:300]}")
    print("| **sum** |", " | ".join(str(n) for n in sums.values()), "|")


if __name__ == "__main__":
    main()
