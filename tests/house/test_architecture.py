"""Imports point one way, and nothing heavy is loaded before it is needed."""

import ast
import functools
import graphlib
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from fresh import python
from selection import first_quick

import streamrnn

PACKAGE = Path(streamrnn.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
HOME = streamrnn._HOME

# Rings of rooms, each above those before it. Outside: `errors`, which all import, and `cli`, which
# nobody does; public files, which are lists of names; and `plugins`.
RINGS = {
    "base": "arrays display provider plugin storage",
    "nn": "simd kernels layers models training formats",
    "stream": "config sources states windows sinks operators checkpoints scoring",
    "jobs": "outputs preflight engines running session fitting evaluation explaining guesses "
    "pipeline",
}

# Room -> the rooms below it that it may import. `cli` parses, calls one public function, prints.
# Above them all: `plugins`, which nobody imports, as `plugin` loads them by their entry points.
MAY_IMPORT = {
    "arrays": "",
    "display": "",
    "provider": "",
    "errors": "display",
    "plugin": "errors",
    "config": "display errors plugin",
    "storage": "display errors",
    "simd": "arrays errors",
    "kernels": "arrays errors simd",
    "layers": "arrays display errors plugin kernels",
    "models": "arrays display errors kernels layers provider",
    "training": "arrays display errors kernels layers models",
    "formats": "arrays display errors plugin kernels layers models storage",
    "sources": "arrays display errors plugin kernels storage",
    "states": "arrays display errors kernels sources storage",
    "windows": "arrays display errors sources",
    "sinks": "errors storage",
    "operators": "arrays display errors kernels models states sources windows",
    "checkpoints": "arrays display errors config states sources sinks storage",
    "scoring": "arrays display errors config formats kernels models states sources storage windows "
    "operators",
    "outputs": "arrays display errors plugin config formats models sources states windows "
    "operators sinks storage checkpoints",
    "preflight": "display errors config formats models sources states storage checkpoints scoring "
    "outputs",
    "engines": "arrays errors plugin config kernels checkpoints scoring sinks sources states",
    "running": "arrays display errors config sources states storage checkpoints scoring engines "
    "outputs preflight",
    "session": "display errors config sources states storage checkpoints scoring outputs preflight "
    "running",
    "fitting": "arrays display errors config kernels layers models formats checkpoints scoring "
    "sources states storage training windows preflight",
    "evaluation": "arrays display errors config models sources states storage windows checkpoints "
    "scoring outputs preflight training fitting",
    "explaining": "arrays display errors config kernels models sources checkpoints scoring engines "
    "preflight running",
    "guesses": "arrays errors config formats models sources",
    "pipeline": "display errors plugin config kernels sources states checkpoints scoring preflight "
    "running session fitting evaluation explaining",
    "cli": "display errors plugin config formats layers models outputs running fitting evaluation "
    "guesses pipeline",
}
# Modules that Keras has at its top.
KERAS_NAMES = {"activations", "callbacks", "initializers", "losses", "metrics", "optimizers"}
KERAS_NAMES |= {"ops", "regularizers", "utils"}
OPS = PACKAGE / "nn" / "layers" / "ops.py"
# Library -> the rooms that may import it.
ONLY_IN = {
    "numba": "simd",
    "llvmlite": "simd",
    "pyarrow": "storage sources states windows operators sinks checkpoints scoring outputs "
    "preflight engines running session fitting evaluation explaining guesses pipeline cli plugins",
    "pyspark": "plugins",
    "pydantic": "config",
    "typer": "cli plugins",
    "click": "cli",
    "rich": "cli",
    "safetensors": "formats",
    "h5py": "formats",
    "onnx": "plugins",
    "ray": "plugins",
    "vl_convert": "plugins",
    "starlette": "plugins",
    "uvicorn": "plugins",
    "uvloop": "plugins",
    "prometheus_client": "plugins",
    "orjson": "plugins",
    # Compiled kernels in our own cache; never a file that someone hands over.
    "pickle": "simd",
}
NEVER = {"tensorflow", "torch", "keras", "jax", "onnxruntime", "pandas", "polars", "duckdb"}
NEVER |= {"marshal", "shelve"}
# Files that annotate what they return with classes of a room above: of `fit`, of `report`.
ANNOTATED = {("nn/models/trainable.py", "training"), ("jobs/pipeline/pipeline.py", "plugins")}
# What imports by name, unseen by ruff and mypy; and the files that may: the package's door, the
# loader of plug-ins, and the door that loads numba's kernels one by one: its own files only.
BY_NAME = {"__import__", "eval", "exec", "importlib", "import_module", "modules", "pkgutil"}
BY_NAME |= {"pydoc", "runpy"}
IMPORT_BY_NAME = {"__init__.py", "base/plugin.py", "nn/simd/__init__.py"}


def _room(path: Path) -> str:
    """The room of a file; `public` for the lists of names, __init__ for the door of a ring."""
    first, *rest = path.relative_to(PACKAGE).with_suffix("").parts
    if first in RINGS:
        return rest[0]
    if first == "__main__":
        return "cli"
    is_public = (not rest and first not in {"__init__", "errors"}) or first == "optimizers"
    return "public" if is_public else first


_parsed = functools.cache(ast.parse)  # by source: most tests read all files


@functools.cache
def _nodes(path: Path) -> tuple[ast.AST, ...]:
    """All nodes of a file."""
    return tuple(ast.walk(_parsed(path.read_text())))


def _module(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


MODULES = {_module(path) for path in FILES}


def _no_code(node: ast.AST) -> list[ast.AST]:
    """What is below a node and loads nothing: documentation, the name of a logger, `in modules`."""
    match node:
        case ast.Expr(value=ast.Constant() as text):
            return [text]
        case ast.Assign(targets=[ast.Attribute(attr="__doc__")], value=text):
            return list(ast.walk(text))
        case ast.Call(func=ast.Attribute(attr="getLogger"), args=[name]):
            return [name]
        case ast.Compare(left=ast.Constant() as name, ops=[ast.In()], comparators=[modules]):
            return [name, modules]
    return []


def _named_by(text: str) -> set[str]:
    """The module of the package that a string names, alone or with what is in it: a:b, a.{b}."""
    parts = re.split("[.:]", text) if re.fullmatch(r"streamrnn\.[\w.]*(:\w*)?", text) else []
    names = [".".join(parts[:n]) for n in range(len(parts), 1, -1)]
    return set([name for name in names if name in MODULES][:1])


def _imports(source: str, *, annotations: bool = True) -> set[str]:
    """Dotted names of all that a source imports, wherever in it, also by a string.

    Ways to import by name are among them. annotations: also those for type checkers alone.
    """
    found: set[str] = set()
    waiting: list[ast.AST] = [_parsed(source)]
    no_code: set[int] = set()
    while waiting:
        node = waiting.pop()
        no_code |= {id(text) for text in _no_code(node)}
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=orelse) if not annotations:
                waiting += orelse
                continue
            case ast.Import(names=names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(level=level) if level:
                raise AssertionError(f"relative import in line {node.lineno}")
            case ast.ImportFrom(module=str(module), names=names):
                whole = {f"{module}.{alias.name}" for alias in names}
                found |= whole if module in {"streamrnn", "importlib"} else whole & MODULES
                found |= set() if whole <= found else {module}
                found |= {alias.name for alias in names} & BY_NAME
            case ast.Constant(value=str(text)) if id(node) not in no_code:
                found |= _named_by(text)
            case ast.Name(id=name) | ast.Attribute(attr=name) if id(node) not in no_code:
                found |= {name} & BY_NAME
        waiting += ast.iter_child_nodes(node)
    # They read the files and the version of an installed package.
    return found - {"importlib.resources", "importlib.metadata"}


@functools.cache
def _imported(path: Path, *, annotations: bool = True) -> set[str]:
    return _imports(path.read_text(), annotations=annotations)


def _rooms(imported: set[str]) -> set[str]:
    rooms = set()
    for name in imported:
        match name.split("."):
            case ["streamrnn", ring, room, *_] if ring in RINGS:
                rooms.add(room)
            case ["streamrnn", "cli" | "errors" | "plugins" as room, *_]:
                rooms.add(room)
            case ["streamrnn", *other] if other != ["__version__"]:
                rooms.add("public")
    return rooms


def _refused_imports(path: Path, source: str | None = None) -> set[str]:
    """Libraries and rooms that a file imports and must not, and ways to import unseen."""
    room, file = _room(path), path.relative_to(PACKAGE).as_posix()
    imported = _imported(path) if source is None else _imports(source)
    libraries = {name.split(".")[0] for name in imported}
    refused = libraries & NEVER
    refused |= {name for name in libraries & set(ONLY_IN) if room not in ONLY_IN[name].split()}
    refused |= set() if file in IMPORT_BY_NAME else libraries & BY_NAME
    if room in {"plugins", "public"} or file == "__init__.py":
        return refused
    if room == "__init__":  # of a ring, which has no door of its own
        return refused | _rooms(imported)
    annotated = {above for annotating, above in ANNOTATED if file == annotating}
    if annotated:
        source = path.read_text() if source is None else source
        annotated -= _rooms(_imports(source, annotations=False))
    return refused | _rooms(imported) - {room} - annotated - set(MAY_IMPORT[room].split())


def test_imports_point_one_way() -> None:
    """A room imports itself and the rooms below it; a library is used where it belongs."""
    assert {path: refused for path in FILES if (refused := _refused_imports(path))} == {}


@pytest.mark.parametrize(
    ("source", "refused"),
    [
        (
            "from importlib import import_module\n"
            "def later(): return import_module('streamrnn.jobs.pipeline').Pipeline",
            {"import_module", "importlib", "pipeline"},
        ),
        ("import importlib as i\ni.import_module('.pipeline', 'streamrnn')", {"importlib"}),
        ("def later(): return __import__('streamrnn.jobs.running.run')", {"__import__", "running"}),
        ("import runpy", {"runpy"}),
        ("_LATE = {'Pipeline': 'streamrnn.pipeline'}", {"public"}),
        ("AT = 'streamrnn.jobs.pipeline.pipeline:Pipeline'", {"pipeline"}),
        ("def later(name): return f'streamrnn.jobs.pipeline.{name}'", {"pipeline"}),
        ("def later():\n    from streamrnn import Pipeline", {"public"}),
        ("import streamrnn\ndef later(): return streamrnn.Pipeline", {"public"}),
        ("exec('from streamrnn.jobs.pipeline import Pipeline')", {"exec"}),
        ("import sys\ndef later(name): return sys.modules[f'streamrnn.{name}']", {"modules"}),
        ("from sys import modules as m\nJOBS = m['.'.join(['streamrnn', 'jobs'])]", {"modules"}),
        ("import pydoc\nP = pydoc.locate('.'.join(['streamrnn', 'pipeline']))", {"pydoc"}),
        ("from pydoc import locate", {"pydoc"}),
        ("if TYPE_CHECKING:\n    from streamrnn.pipeline import Pipeline", {"public"}),
        ("def later():\n    import streamrnn.jobs.engines.opening, torch", {"engines", "torch"}),
    ],
)
def test_an_import_is_seen_however_it_is_written(source: str, refused: set[str]) -> None:
    assert _refused_imports(PACKAGE / "stream" / "sources" / "words.py", source) >= refused
    assert (
        _refused_imports(PACKAGE / "stream" / "sources" / "words.py", source) <= refused | BY_NAME
    )


@pytest.mark.parametrize(
    "source",
    [
        "'streamrnn.pipeline'",
        "def f():\n    'streamrnn.pipeline'",
        "f.__doc__ = f'streamrnn.pipeline.{name}'",
        "log = logging.getLogger('streamrnn.pipeline')",
        "raise ValueError('streamrnn.pipeline has no such name')",
        "KEY = b'streamrnn.pipeline'",
        "from importlib.resources import files",
        "from streamrnn import __version__",
        "import sys\nLOADED = 'streamrnn.pipeline' in sys.modules",
        "from streamrnn.base.storage import Files",
    ],
)
def test_words_about_a_module_do_not_import_it(source: str) -> None:
    assert _refused_imports(PACKAGE / "stream" / "sources" / "words.py", source) == set()


def test_the_door_of_simd_imports_its_own_files_alone() -> None:
    calls = [
        ast.unparse(node.args[0])
        for node in _nodes(PACKAGE / "nn" / "simd" / "__init__.py")
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module")
    ]
    assert calls == ["f'{__name__}.{name}'"]


def test_a_ring_has_no_door() -> None:
    path = PACKAGE / "nn" / "__init__.py"
    assert _refused_imports(path, "from streamrnn.nn.layers import LSTM") == {"layers"}


def test_an_annotation_of_a_room_above_is_one_for_type_checkers_alone() -> None:
    path = PACKAGE / "nn" / "models" / "trainable.py"
    import_it = "from streamrnn.nn.training.loss import Loss"
    assert _refused_imports(path, f"if TYPE_CHECKING:\n    {import_it}") == set()
    assert _refused_imports(path, import_it) == {"training"}
    assert _refused_imports(path.with_name("model.py"), f"if TYPE_CHECKING:\n    {import_it}") == {
        "training"
    }


def test_nobody_imports_a_plugin() -> None:
    """Not even another plug-in. A public file may name what one has, for mypy and editors."""
    imported = {
        (path, name)
        for path in FILES
        for name in _imported(path, annotations=_room(path) != "public")
        if name.startswith("streamrnn.plugins")
        if not (_module(path).split(".")[:3] == name.split(".")[:3] and _room(path) == "plugins")
    }
    annotated = {PACKAGE / file for file, above in ANNOTATED if above == "plugins"}
    assert {(path, name) for path, name in imported if path not in annotated} == set()


def test_no_product_is_left_to_blas() -> None:
    """Functions of BLAS and LAPACK are banned by ruff (pyproject.toml); this is the operator."""
    operators = {path for path in FILES for node in _nodes(path) if isinstance(node, ast.MatMult)}
    assert operators == set()


# `CallContext.kind` of a layer, or the whole of a model: another word than [window] kind.
OTHER_KINDS = {("layers", "whole"), ("models", "whole")}
OTHER_KINDS |= {("fitting", "carry")}  # the way in which a new model takes over a state
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
    kinds = {
        PACKAGE / "stream" / "operators" / f"{name}.py"
        for name in ("carry", "independent", "whole")
    }
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


def _imported_at_once(path: Path) -> set[str]:
    """Modules of the package that are loaded when a module is: not those inside functions."""
    found: set[str] = set()
    waiting: list[ast.stmt] = list(_parsed(path.read_text()).body)
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


def _reached(graph: Mapping[str, set[str]], start: str) -> set[str]:
    reached: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph[waiting.pop()] - reached
        reached |= new
        waiting += new
    return reached


def _circles(graph: Mapping[str, set[str]]) -> set[frozenset[str]]:
    """Groups of modules each of which leads to all of its group."""
    reached = {module: _reached(graph, module) for module in graph}
    return {
        frozenset(other for other in reached[module] if module in reached[other])
        for module in graph
        if module in reached[module]
    }


def test_circles_of_files_are_small() -> None:
    """Whoever changes a file of a circle reads them all: three at most.

    Annotations, late imports and strings count. The package's door, which names its rooms, is left
    out; what it says of rooms is theirs.
    """
    door = "streamrnn"
    graph = {
        _module(path): {
            HOME.get(module.removeprefix(f"{door}."), module) for module in _imported(path)
        }
        & MODULES - {door, _module(path)}
        for path in FILES
        if _module(path) != door
    }
    assert {circle for circle in _circles(graph) if len(circle) > 3} == set()


def test_a_circle_is_found() -> None:
    graph = {
        "a": {"b"},
        "b": {"c", "e"},
        "c": {"a"},
        "d": {"a"},
        "e": {"f"},
        "f": {"e"},
        "g": {"d"},
    }
    assert _circles(graph) == {frozenset("abc"), frozenset("ef")}


def test_every_room_stands_in_the_table() -> None:
    """A new room says what it may import; one that is gone leaves no line."""
    rooms = {_room(path) for path in FILES} - {"__init__", "plugins", "public"}
    assert rooms == set(MAY_IMPORT)
    assert rooms - {"cli", "errors"} == set(" ".join(RINGS.values()).split())


def test_a_ring_imports_no_ring_above_it() -> None:
    below = {"errors"}
    for ring, rooms in RINGS.items():
        below |= set(rooms.split())
        for room in rooms.split():
            assert set(MAY_IMPORT[room].split()) <= below, f"{room} in {ring}"


def test_a_public_file_is_a_list_of_names() -> None:
    """What a plug-in has, and what is loaded on first use, are names for mypy and editors."""
    for path in (path for path in FILES if _room(path) == "public"):
        for node in _parsed(path.read_text()).body[1:]:
            match node:
                case ast.ImportFrom() | ast.If(test=ast.Name(id="TYPE_CHECKING")):
                    pass
                case ast.If(test=ast.UnaryOp(operand=ast.Name(id="TYPE_CHECKING"))):
                    pass
                case ast.Assign(targets=[ast.Name(id="__all__")]):
                    pass
                case ast.Expr(value=ast.Call(func=ast.Attribute(ast.Name("__all__"), "sort"))):
                    pass  # griffe, which compares what is public, reads no sorted(…)
                case ast.FunctionDef(name="__getattr__" | "__dir__"):
                    pass
                case ast.Expr(value=ast.Call(func=ast.Name(id="_show_in"))):
                    pass
                case _:
                    pytest.fail(f"{path}: {ast.unparse(node)}")


@pytest.mark.parametrize("name", first_quick(sorted(KERAS_NAMES)))
def test_a_module_of_keras_is_imported_in_each_way(name: str) -> None:
    """As an attribute, as a module, and names from it; of the package alone nothing is loaded.

    Slow: other modules, a process each.
    """
    of_layers = ("activations", "initializers", "ops", "regularizers")
    home = "layers" if name in of_layers else "training"
    script = (
        f"import sys, streamrnn; assert 'streamrnn.nn.training' not in sys.modules; "
        f"import streamrnn.{name} as a; from streamrnn import {name} as b; "
        f"from streamrnn.nn.{home} import {name} as c; "
        f"assert a is b is streamrnn.{name} and set(a.__all__) >= set(c.__all__); "
        f"assert all(getattr(a, n) is getattr(c, n) for n in c.__all__)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)


def test_a_logger_has_the_name_of_its_room() -> None:
    """So that a program can turn one room up or down; the command line has the one above all.

    What `Pipeline` says is the pipeline's, whichever room finds it.
    """
    of_a_pipeline = {"preflight", "running", "session"}
    loggers = {
        (path, ast.literal_eval(node.args[0]))
        for path in FILES
        for node in _nodes(path)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "logging.getLogger"
    }
    rooms = {path: _room(path) for path, _ in loggers}
    rooms |= {path: "pipeline" for path, room in rooms.items() if room in of_a_pipeline}
    names = {path: f"streamrnn.{room}".removesuffix(".cli") for path, room in rooms.items()}
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
        ("import streamrnn.nn.formats", ("pyarrow", "typer", "pydantic", "h5py", "onnx")),
        ("import streamrnn.states, streamrnn.stream.sources", ("numba", "typer", "pydantic")),
        ("from streamrnn import Pipeline", ("typer", "rich", "h5py", "onnx")),
        ("import streamrnn; streamrnn.outputs.verify", ("typer", "rich", "h5py", "onnx")),
        ("import streamrnn.spark", ("pyspark", "typer", "rich", "h5py", "onnx")),
        ("import streamrnn.cli", ("numba", "pyarrow", "h5py", "onnx")),
    ],
)
def test_what_an_import_does_not_load(code: str, absent: tuple[str, ...]) -> None:
    """In a process of its own: layers need no Arrow, an ETL job no typer, --help no numba."""
    script = f"{code}\nimport sys\nprint([m for m in {absent!r} if m in sys.modules])"
    assert python("-c", script).stdout.strip() == "[]"


def test_nobody_but_the_state_table_reaches_into_it() -> None:
    """Its memory is its own: others read copies, and write by its methods."""
    states = PACKAGE / "stream" / "states"
    own = {
        node.attr
        for node in (*_nodes(states / "table.py"), *_nodes(states / "arrays.py"))
        if isinstance(node, ast.Attribute) and node.attr.startswith("_")
        if isinstance(node.ctx, ast.Store)
    }
    assert {"_steps", "_states", "_waiting", "_held", "_dirty", "_previous"} <= own
    named = re.compile(rf"(?<!\bself)\.({'|'.join(own)})\b")  # to parse few files of many
    found = [
        f"{path.name}:{node.lineno} {ast.unparse(node)}"
        for path in [*FILES, *Path(__file__).parents[1].rglob("*.py")]
        if named.search(path.read_text())
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
        for node in _parsed(path.read_text()).body:
            for name in _defined(node):
                if not name.startswith("_"):
                    homes.setdefault(name, set()).add(_room(path))
    activations = {name for name in homes if hasattr(streamrnn.activations, name)}
    assert {"tanh", "gelu", "linear"} <= activations
    shared = {name: rooms - {"cli"} for name, rooms in homes.items() if len(rooms - {"cli"}) > 1}
    twice = {name for name, rooms in shared.items() if rooms != {"layers", "simd"}}
    assert twice == set()
    assert shared.keys() <= activations


def test_all_kinds_of_definitions_are_found() -> None:
    text = "class A: ...\ndef b(): ...\nC = D, E = 1, 2\nF: int = 3\nT = TypeVar('T')\ng.h = 4"
    assert [name for node in _parsed(text).body for name in _defined(node)] == list("AbCDEF")
