"""Imports point one way, and nothing heavy is loaded before it is needed."""

import ast
import functools
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import streamrnn

PACKAGE = Path(streamrnn.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
HOME = {name: home.split(".")[1] for name, home in streamrnn._HOME.items()}

# Room -> the rooms below it that it may import. `cli` parses, calls one public function, prints.
# Above them all: `plugins`, which nobody imports, as `plugin` loads them by their entry points.
MAY_IMPORT = {
    "arrays": "",
    "display": "",
    "provider": "",
    "errors": "display",
    "plugin": "errors",
    "config": "display errors",
    "storage": "display errors",
    "simd": "arrays errors",
    "kernels": "arrays errors simd",
    "layers": "arrays display errors kernels",
    "models": "arrays display errors kernels layers provider",
    "training": "arrays display errors kernels layers models",
    "formats": "arrays display errors kernels layers models storage",
    "sources": "arrays display errors plugin kernels storage",
    "states": "arrays display errors kernels sources storage",
    "windows": "arrays display errors sources",
    "sinks": "errors storage",
    "operators": "arrays display errors kernels models states sources windows",
    "checkpoints": "arrays display errors config states sources sinks storage",
    "scoring": "arrays display errors config formats kernels models states sources storage windows "
    "operators",
    "fitting": "arrays errors kernels layers models checkpoints scoring sources states storage "
    "training windows",
    "engines": "arrays errors plugin config kernels checkpoints scoring sinks sources states",
    "outputs": "arrays display errors plugin config formats sources states windows operators sinks "
    "storage checkpoints",
    "pipeline": "arrays display errors config fitting formats kernels models states sources "
    "checkpoints scoring engines outputs plugin storage training",
    "cli": "display errors plugin config formats layers models outputs pipeline",
}
# Modules that Keras has at its top: they only repeat the names of a module in a room.
KERAS_NAMES = {"activations", "callbacks", "initializers", "losses", "metrics", "optimizers"}
KERAS_NAMES |= {"ops", "regularizers"}
# Public files that name what a plug-in has, for mypy and editors; it is loaded on first use.
NAMES_OF_PLUGINS = {"callbacks", "spark"}
# `Pipeline.report` returns what a plug-in makes.
TYPES_OF_PLUGINS = {PACKAGE / "pipeline" / "pipeline.py", PACKAGE / "pipeline" / "__init__.py"}
OPS = PACKAGE / "layers" / "ops.py"
# Library -> the rooms that may import it.
ONLY_IN = {
    "numba": "simd",
    "llvmlite": "simd",
    "pyarrow": "storage sources states windows operators sinks checkpoints scoring engines fitting "
    "outputs pipeline cli plugins",
    "pyspark": "plugins",
    "pydantic": "config",
    "typer": "cli plugins",
    "click": "cli",
    "rich": "cli",
    "safetensors": "formats",
    "h5py": "formats",
    "onnx": "formats",
    "ray": "plugins",
    "vl_convert": "plugins",
    # Compiled kernels in our own cache, and pipes to our own processes; never a file that someone
    # hands over.
    "pickle": "simd pipeline",
}
NEVER = {"tensorflow", "torch", "keras", "jax", "onnxruntime", "pandas", "polars", "duckdb"}
NEVER |= {"marshal", "shelve"}
# What `fit` returns and the optimizer of a model: names for mypy and editors.
DOORS = {("models/trainable.py", "training")}


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@functools.cache
def _nodes(path: Path) -> tuple[ast.AST, ...]:
    """All nodes of a file."""
    return tuple(ast.walk(ast.parse(path.read_text())))


@functools.cache
def _imported(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, wherever in it."""
    found: set[str] = set()
    for node in _nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import in line {node.lineno}"
            module = node.module or ""
            found |= (
                {f"{module}.{a.name}" for a in node.names} if module == "streamrnn" else {module}
            )
    return found


def _refused_imports(path: Path) -> set[str]:
    """Libraries and rooms that a file imports and must not."""
    room = _room(path)
    imported = _imported(path)
    libraries = {name.split(".")[0] for name in imported}
    refused = libraries & NEVER
    refused |= {name for name in libraries & set(ONLY_IN) if room not in ONLY_IN[name].split()}
    if room in {"__init__", "plugins"} | KERAS_NAMES | NAMES_OF_PLUGINS:
        return refused
    names = {n.split(".")[1] for n in imported if n.startswith("streamrnn.")} - {"__version__"}
    rooms_used = {HOME.get(name, name) for name in names}
    doors = {below for file, below in DOORS if path == PACKAGE / file}
    if path in TYPES_OF_PLUGINS:
        rooms_used -= {"plugins"}
    return refused | rooms_used - {room} - doors - set(MAY_IMPORT[room].split())


def test_imports_point_one_way() -> None:
    """A room imports itself and the rooms below it; a library is used where it belongs."""
    assert {path: refused for path in FILES if (refused := _refused_imports(path))} == {}


def _may_name_plugins(path: Path) -> bool:
    return _room(path) in NAMES_OF_PLUGINS or path in TYPES_OF_PLUGINS


def test_nobody_imports_a_plugin() -> None:
    """Not even another plug-in. A public file may name what one has, for mypy and editors."""
    imported = {
        (path, name)
        for path in FILES
        for name in (_imported_at_once if _may_name_plugins(path) else _imported)(path)
        if name.startswith("streamrnn.plugins")
        if not (_module(path).split(".")[:3] == name.split(".")[:3] and _room(path) == "plugins")
    }
    assert imported == set()


def test_no_product_is_left_to_blas() -> None:
    """Functions of BLAS and LAPACK are banned by ruff (pyproject.toml); this is the operator."""
    operators = {path for path in FILES for node in _nodes(path) if isinstance(node, ast.MatMult)}
    assert operators == set()


# `CallContext.kind` of a layer, or the whole of a model: another word than [window] kind.
OTHER_KINDS = {("layers", "whole"), ("models", "whole")}
NAMES_A_KIND = re.compile(r"carry|independent|fixed|whole|.*\bkind\W+(carry|independent|whole)\b")


def _strings(path: Path) -> set[str]:
    """All strings of a module that are code: docstrings are not."""
    texts = {
        id(node.value)
        for node in _nodes(path)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    return {
        node.value
        for node in _nodes(path)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts
    }


def test_a_kind_of_window_is_named_where_it_is_defined() -> None:
    """Everyone else asks the kind: its name, whether it needs the end, whether its rows wait."""
    kinds = {PACKAGE / "operators" / f"{name}.py" for name in ("carry", "independent", "whole")}
    named = {
        (path, text)
        for path in FILES
        if _room(path) != "config" and path not in kinds
        for text in _strings(path)
        if NAMES_A_KIND.match(text) and (_room(path), text) not in OTHER_KINDS
    }
    assert named == set()


def test_the_path_that_stands_for_a_pipe_is_compared_in_the_config_alone() -> None:
    """Everyone else asks whether the source is piped, or which folder the sink has."""
    compared = {
        (path, ast.unparse(node))
        for path in FILES
        if _room(path) != "config"
        for node in _nodes(path)
        if isinstance(node, ast.Compare)
        for side in (node.left, *node.comparators)
        if ast.unparse(side) in {repr("-"), "PIPE", "config.PIPE"}
    }
    assert compared == set()


FILE_CALLS = {"fsync", "rename", "replace", "scandir", "walk", "listdir", "unlink", "mkdir"}


def test_data_is_listed_and_written_through_storage() -> None:
    """Sources, sinks and states know no disk and no object store: a test that fails one in
    `storage` has failed it everywhere. (Not so the cache of `kernels`, and model files, which need
    no Arrow.)"""
    others = [path for path in FILES if _room(path) not in {"storage", "kernels", "formats"}]
    assert [path for path in others if "pyarrow.fs" in _imported(path)] == []
    calls = {
        (path, node.attr)
        for path in others
        for node in _nodes(path)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "os"
        if node.attr in FILE_CALLS
    }
    assert calls == set()


def _module(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


MODULES = {_module(path) for path in FILES}


def _imported_at_once(path: Path) -> set[str]:
    """Modules of the package that are loaded when a module is: not those inside functions."""
    found: set[str] = set()
    waiting: list[ast.stmt] = list(ast.parse(path.read_text()).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.ImportFrom) and node.module:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= whole & MODULES if whole <= MODULES else whole & MODULES | {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            waiting += [*node.body, *node.orelse]
        elif isinstance(node, ast.Try):
            waiting += node.body
    return found


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Annotations excepted: a cycle has no order to read it in."""
    graph = {_module(path): _imported_at_once(path) & MODULES - {_module(path)} for path in FILES}
    try:
        list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_every_room_stands_in_the_table() -> None:
    """A new room says what it may import; one that is gone leaves no line."""
    no_rooms = {"__init__", "plugins"} | KERAS_NAMES | NAMES_OF_PLUGINS
    assert {_room(path) for path in FILES} - no_rooms == set(MAY_IMPORT)


def test_a_module_of_keras_repeats_names_only() -> None:
    for path in (path for path in FILES if _room(path) in KERAS_NAMES - NAMES_OF_PLUGINS):
        _, *statements = ast.parse(path.read_text()).body
        assert all(isinstance(node, ast.ImportFrom) for node in statements), path


@pytest.mark.parametrize("name", sorted(KERAS_NAMES))
def test_a_module_of_keras_is_imported_in_each_way(name: str) -> None:
    """As an attribute, as a module, and names from it; of the package alone nothing is loaded."""
    of_layers = ("activations", "initializers", "ops", "regularizers")
    home = "layers" if name in of_layers else "training"
    script = (
        f"import sys, streamrnn; assert 'streamrnn.training' not in sys.modules; "
        f"import streamrnn.{name} as a; from streamrnn import {name} as b; "
        f"from streamrnn.{home} import {name} as c; "
        f"assert a is b is streamrnn.{name} and set(a.__all__) >= set(c.__all__); "
        f"assert all(getattr(a, n) is getattr(c, n) for n in c.__all__)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)


def test_a_logger_has_the_name_of_its_room() -> None:
    """So that a program can turn one room up or down; the command line has the one above all."""
    loggers = {
        (path, ast.literal_eval(node.args[0]))
        for path in FILES
        for node in _nodes(path)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "logging.getLogger"
    }
    names = {path: f"streamrnn.{_room(path)}".removesuffix(".cli") for path, _ in loggers}
    assert {(path, name) for path, name in loggers if name != names[path]} == set()


HEAVY = ("numpy", "numba", "pyarrow", "typer", "pydantic", "rich", "safetensors", "h5py", "onnx")


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import streamrnn", HEAVY),
        ("import streamrnn; dir(streamrnn); streamrnn.__version__", HEAVY),
        ("import streamrnn.layers", ("pyarrow", "typer", "rich", "pydantic", "h5py", "onnx")),
        (
            "from streamrnn import Sequential, Model, Input, layers",
            ("pyarrow", "typer", "pydantic"),
        ),
        ("import streamrnn.formats", ("pyarrow", "typer", "pydantic", "h5py", "onnx")),
        ("import streamrnn.states, streamrnn.sources", ("numba", "typer", "pydantic")),
        ("from streamrnn import Pipeline", ("typer", "rich", "h5py", "onnx")),
        ("import streamrnn; streamrnn.outputs.verify", ("typer", "rich", "h5py", "onnx")),
        ("import streamrnn.spark", ("pyspark", "typer", "rich", "h5py", "onnx")),
        ("import streamrnn.cli", ("numba", "pyarrow", "h5py", "onnx")),
    ],
)
def test_what_an_import_does_not_load(code: str, absent: tuple[str, ...]) -> None:
    """In a process of its own: layers need no Arrow, an ETL job no typer, --help no numba."""
    script = f"{code}\nimport sys\nprint([m for m in {absent!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout.strip() == "[]"


def test_nobody_but_the_state_table_reaches_into_it() -> None:
    """Its memory is its own: others read copies, and write by its methods."""
    table = PACKAGE / "states" / "table.py"
    own = {
        node.attr
        for node in _nodes(table)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_")
        if isinstance(node.ctx, ast.Store)
    }
    assert {"_steps", "_states", "_waiting", "_held", "_dirty", "_previous"} <= own
    found = [
        f"{path.name}:{node.lineno} {ast.unparse(node)}"
        for path in [*FILES, *Path(__file__).parents[1].rglob("*.py")]
        for node in _nodes(path)
        if isinstance(node, ast.Attribute)
        and node.attr in own
        and ast.unparse(node.value) != "self"
    ]
    assert found == []


def _defined(node: ast.stmt) -> list[str]:
    """The names that a statement of a module defines: classes, functions, aliases, constants."""
    match node:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
            return [name]
        case ast.Assign(value=ast.Call(func=ast.Name(id="TypeVar"))):
            return []  # a parameter of the functions of its file
        case ast.Assign(targets=targets):
            names = [name for target in targets for name in ast.walk(target)]
            return [
                name.id
                for name in names
                if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
            ]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []


def test_a_public_name_means_one_thing() -> None:
    """No name is defined in two rooms; but `cli` parses for all of them, and `simd` computes.

    An activation has one name: that of the layers' function and of its kernel. The names in `ops`
    are those of keras.ops.
    """
    homes: dict[str, set[str]] = {}
    for path in (path for path in FILES if path != OPS):
        for node in ast.parse(path.read_text()).body:
            for name in _defined(node):
                if not name.startswith("_"):
                    homes.setdefault(name, set()).add(_room(path))
    activations = {name for name in homes if hasattr(streamrnn.layers.activations, name)}
    assert {"tanh", "gelu", "linear"} <= activations
    shared = {name: rooms - {"cli"} for name, rooms in homes.items() if len(rooms - {"cli"}) > 1}
    twice = {name for name, rooms in shared.items() if rooms != {"layers", "simd"}}
    assert twice == set()
    assert shared.keys() <= activations


def test_all_kinds_of_definitions_are_found() -> None:
    text = "class A: ...\ndef b(): ...\nC = D, E = 1, 2\nF: int = 3\nT = TypeVar('T')\ng.h = 4"
    assert [name for node in ast.parse(text).body for name in _defined(node)] == list("AbCDEF")
