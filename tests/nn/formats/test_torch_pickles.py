"""Pickles are read as data: nothing in them runs, and damage gives the general advice."""

import io
import json
import pickle
import random
import subprocess
import tomllib
import zipfile

import pytest

from streamrnn import load_model
from streamrnn.errors import MissingFileError, UnsupportedError
from streamrnn.nn.formats.inert_pickle import Global, Made, read_values
from streamrnn.nn.formats.torch_advice import conversion_advice
from streamrnn.nn.formats.torch_tables import MAX_TABLES

GENERAL = '    save_file(torch.load("m.pt", weights_only=True), "m.safetensors")'


def text(value):
    data = value.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def tensor(shape, storage=b"FloatStorage"):
    """A tensor as torch.save writes it: a call with the storage, offset, shape and strides."""
    sizes = b"".join(b"J" + n.to_bytes(4, "little") for n in shape)
    numbers = b"(" + sizes + b"t"
    stored = b"(" + text("storage") + b"ctorch\n" + storage + b"\n" + text("0") + text("cpu")
    head = b"ctorch._utils\n_rebuild_tensor_v2\n("
    return head + stored + b"K\x01tQK\x00" + numbers + numbers + b"\x89}tR"


def state_dict(arrays):
    items = b"".join(text(name) + tensor(shape) for name, shape in arrays.items())
    return b"\x80\x02}(" + items + b"u."


def write(path, data):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", data)
    return path


ARRAYS = {"enc.weight_ih_l0": (24, 4), "enc.weight_hh_l0": (24, 6), "out.weight": (2, 6)}


def test_values_of_a_pickle_that_python_wrote():
    """All protocols give the same values."""
    value = {"a": [1, 2.5, "x", (True, None)], 3: {"b": (1, 2, 3, 4)}, "d": [[]]}
    for protocol in range(6):
        file = io.BytesIO(pickle.dumps(value, protocol))
        assert read_values(file).value == value


def test_classes_become_names():
    pickled = read_values(io.BytesIO(pickle.dumps([ValueError("x"), len], 4)))
    assert pickled.value == [Made("builtins.ValueError", ("x",)), Global("builtins.len")]
    assert pickled.globals == {"builtins.ValueError", "builtins.len"}
    assert pickled.protocol == 4


def test_a_state_dict_gives_its_tables(tmp_path):
    message = conversion_advice(write(tmp_path / "m.pt", state_dict(ARRAYS)))
    assert "It holds a state_dict. Convert it once" in message
    tables = tomllib.loads(message[message.index("[[") :])["model"]["layers"]
    assert tables == [
        {"type": "LSTM", "weights": "enc"},
        {"type": "Linear", "weights": "out"},  # an Embedding would come first
    ]


def test_nothing_in_the_file_runs(tmp_path, monkeypatch):
    """Neither as a value nor as a class that is looked up."""

    def never(*_, **__):
        raise AssertionError

    target = tmp_path / "ran"
    command = b"cos\nsystem\n(" + text(f"touch {target}") + b"tR"
    data = state_dict(ARRAYS)
    hostile = data[:-2] + text("x") + command + text("y") + b"cno_such_module\nf\n" + b"u."
    path = write(tmp_path / "m.pt", hostile)
    monkeypatch.setattr(pickle, "loads", never)
    monkeypatch.setattr(pickle, "load", never)
    monkeypatch.setattr(subprocess, "Popen", never)
    message = conversion_advice(path)
    assert not target.exists()
    assert "weights_only=False runs code of the file: only if you trust it" in message


def test_names_cannot_add_lines_to_the_recipe(tmp_path):
    """They are quoted; so is the name of the file."""
    evil = 'x"\nimport os\n    os.system("id")\n.weight'
    arrays = {evil: (2, 2), f"{evil}.bias": (2,), f"{evil}.conv": (1, 2, 3)}
    inner = b"}(" + state_dict(arrays)[4:-1]
    data = b"\x80\x02}" + text(evil) + inner + b"s."
    name = 'm".pt'
    quoted = json.dumps(name)
    message = conversion_advice(write(tmp_path / name, data))
    assert "\nimport os" not in message
    assert "\n    os.system" not in message
    assert f"torch.load({quoted}, map" in message


@pytest.mark.parametrize("old", [False, True], ids=["zip", "old"])
def test_a_damaged_file_gets_the_general_advice(old, tmp_path):
    """Cut anywhere, or with any byte changed: a message, never another error."""
    whole = state_dict(ARRAYS)
    if old:
        magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
        whole = magic + pickle.dumps(1001, 2) + pickle.dumps({}, 2) + whole
    path = tmp_path / "m.pt"

    def put(data):
        if old:
            path.write_bytes(data)
        else:
            write(path, data)

    put(whole)
    assert "It holds a state_dict" in conversion_advice(path)
    for length in range(len(whole)):
        put(whole[:length])
        assert GENERAL in conversion_advice(path)
    rng = random.Random(3)
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        put(bytes(data))
        assert "can run code and is never opened" in conversion_advice(path)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b".",
        b"\x80\x02}q\x00" + text("a") + b"h\x00s.",  # a dict that contains itself
        b"\x80\x02" + b"]" * 1000 + b"a" * 999 + b".",
        b"0.",
        b"",
        b".",
    ],
    ids=["deep", "cycle", "nested", "empty-stack", "empty", "stop"],
)
def test_a_strange_file_gets_a_message(data, tmp_path):
    message = conversion_advice(write(tmp_path / "m.pt", data))
    assert "can run code and is never opened" in message


def test_shared_values_are_not_walked_again_and_again(tmp_path):
    """Forty levels of two references each would be 10^12 paths."""
    data = b"\x80\x02}q\x00"
    for level in range(1, 40):
        inner = b"h" + bytes([level - 1])
        data += b"}q" + bytes([level]) + b"(" + text("a") + inner + text("b") + inner + b"u"
    message = conversion_advice(write(tmp_path / "m.pt", data + b"."))
    assert "can run code and is never opened" in message


def test_modules_that_share_a_module_are_walked_within_limits(tmp_path):
    """As above, for modules: each holds the one before it twice."""
    data = b"\x80\x02cm\nC\n)\x81q\x00"
    for level in range(1, 60):
        inner = b"h" + bytes([level - 1])
        modules = b"}(" + text("a") + inner + text("b") + inner + b"u"
        data += b"cm\nC\n)\x81}" + text("_modules") + modules + b"sbq" + bytes([level])
    message = conversion_advice(write(tmp_path / "m.pt", data + b"."))
    assert "can run code and is never opened" in message


def test_a_large_model_lists_its_first_tables(tmp_path):
    arrays = {f"l{i}.{name}": shape for i in range(60) for name, shape in
              (("weight", (2, 2)), ("bias", (2,)))}  # fmt: skip
    message = conversion_advice(write(tmp_path / "m.pt", state_dict(arrays)))
    assert message.count("[[model.layers]]") == MAX_TABLES
    assert message.endswith("# … and 20 more")


def test_a_file_that_is_missing_or_no_pickle(tmp_path):
    with pytest.raises(MissingFileError, match="no such model file"):
        load_model(tmp_path / "none.pt")
    (tmp_path / "m.bin").write_bytes(b"something else")
    with pytest.raises(UnsupportedError, match="is never opened"):
        load_model(tmp_path / "m.bin")
