"""The source of a PyTorch module says what the layers are, whatever a model file has as text."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from streamrnn import Input, Sequential, layers, load_model
from streamrnn.errors import ArgumentError, SinkError, UnsupportedError
from streamrnn.nn.formats.convert import convert

pytestmark = pytest.mark.usefixtures("workdir")

CODE = "__import__('pathlib').Path('x').touch()"
NAME = f"d\n        ])\n        {CODE}\n        nn.ModuleList([ #"


def saved(name: str = "d") -> None:
    parts = [layers.Dense(2, name=name), layers.LayerNormalization(), layers.LeakyReLU(0.1)]
    Sequential([Input((None, 3)), *parts, layers.Dropout(0.25)]).save("m.safetensors")


def written(module: str = "m.py") -> str:
    convert("m.safetensors", "m.torch.safetensors", module=module)
    return Path(module).read_text()


def calls(source: str) -> set[str]:
    tree = ast.walk(ast.parse(source))
    return {ast.unparse(node.func) for node in tree if isinstance(node, ast.Call)}


def test_a_name_is_a_comment_of_one_line() -> None:
    saved()
    plain = written()
    saved(NAME)
    assert calls(written()) == calls(plain)


@pytest.mark.parametrize("value", [CODE, [1], {"a": 1}])
@pytest.mark.parametrize(
    "argument", ['"use_bias":true', '"epsilon":0.001', '"negative_slope":0.1', '"rate":0.25']
)
def test_an_argument_is_a_number(argument: str, value: object) -> None:
    saved()
    with safe_open("m.safetensors", "np") as file:
        config = file.metadata()["config"]
        other = file.metadata()
    assert argument in config
    name = argument.split(":")[0]
    changed = {**other, "config": config.replace(argument, f"{name}:{json.dumps(value)}")}
    save_file(load_file("m.safetensors"), "m.safetensors", changed)
    with pytest.raises(ArgumentError, match=name.strip('"')):
        written()
    assert not Path("m.py").exists()


def test_names_of_files_are_text() -> None:
    saved()
    Path('a"b').mkdir()
    convert("m.safetensors", 'a"b/m.torch.safetensors', module="m.py")
    nodes = ast.walk(ast.parse(Path("m.py").read_text()))
    texts = [node.value for node in nodes if isinstance(node, ast.Constant)]
    assert 'a"b/m.torch.safetensors' in texts


def test_nothing_is_written_if_a_folder_stands_in_the_way() -> None:
    saved()
    Path("m.py").mkdir()
    with pytest.raises(SinkError, match=r"m\.py: this is a folder, not a file"):
        written()
    assert not Path("m.torch.safetensors").exists()


def test_no_weights_are_written_without_the_module() -> None:
    saved()
    with pytest.raises(OSError, match="File name too long"):  # that of the temporary file
        written("m" * 252 + ".py")
    assert [path.name for path in Path().iterdir()] == ["m.safetensors"]


def test_directions_of_pytorch_are_not_swapped() -> None:
    forward = layers.GRU(2, go_backwards=True, return_sequences=True)
    both = layers.Bidirectional(forward, backward_layer=layers.GRU(2, return_sequences=True))
    Sequential([Input((None, 3)), both]).save("m.safetensors")
    with pytest.raises(UnsupportedError, match="only the second direction of a bidirectional"):
        written()


@pytest.mark.parametrize(
    ("center", "expected"),
    [(True, "scale and center must be both True or both False"), (False, "without scale and cen")],
)
def test_the_reason_is_that_of_the_arguments(center: bool, expected: str) -> None:
    norm = layers.LayerNormalization(scale=False, center=center)
    Sequential([Input((None, 3)), norm]).save("m.safetensors")
    with pytest.raises(UnsupportedError, match=expected):
        written()


def test_keras_has_no_slash_in_a_name() -> None:
    pytest.importorskip("h5py", reason="needs the keras extra")
    saved("a/b")
    with pytest.raises(UnsupportedError, match=r"layer 'a/b' \(Dense\): Keras refuses a name"):
        convert("m.safetensors", "m.keras")


def test_a_gaussian_keeps_its_mean_and_its_least_deviation() -> None:
    """PyTorch itself computes it in the oracle; here it is read again, and gives the same bits."""
    parts = [layers.Dense(4), layers.Gaussian(), layers.Rescaling([2.0, 2.0, 2.0, 2.0])]
    model = Sequential([Input((None, 3)), *parts])
    model.save("m.safetensors")
    lines = [line.strip() for line in written().splitlines()]
    deviation = "functional.softplus(x[..., 2:]) + 0.0010000000474974513"
    assert f"x = torch.cat([x[..., :2], {deviation}], -1)" in lines
    again = load_model("m.torch.safetensors", strict=True)
    x = np.linspace(-9, 9, 18, dtype=np.float32).reshape(2, 3, 3)
    assert again(x).tobytes() == model(x).tobytes()


def test_the_largest_value_of_a_relu_is_written() -> None:
    parts = [layers.ReLU(max_value=6), layers.Activation("relu6"), layers.ReLU(max_value=0.5)]
    Sequential([Input((None, 3)), *parts]).save("m.safetensors")
    lines = [line.strip() for line in written().splitlines()]
    clamped = [f"x = torch.clamp(x, 0.0, {most})" for most in (6.0, 6.0, 0.5)]
    assert [line for line in lines if line.startswith("x = ")] == clamped
