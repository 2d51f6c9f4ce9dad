"""The architecture page, streamrnn/README.md, says what the code says."""

import importlib
import re
from itertools import permutations
from pathlib import Path

import pytest
from house.room_map import room_map, with_map
from house.test_architecture import MAY_IMPORT, PACKAGE, RINGS

ROOT = Path(__file__).parents[2]
PAGE = (PACKAGE / "README.md").read_text()
ROOMS = re.findall(r"^\| `(\w+)` \| .+ \| (.+) \|$", PAGE, re.MULTILINE)


def test_the_map_is_the_one_that_the_command_makes() -> None:
    """After a change to the table: `PYTHONPATH=tests:tests/support python -m house.room_map`."""
    assert with_map(PAGE) == PAGE


def test_the_map_has_an_arrow_to_what_is_imported_and_no_detour() -> None:
    """`a` imports `c` by way of `b` too: that arrow is left out."""
    drawn = room_map({"c": "", "b": "c", "a": "c b"}).split("\n")
    assert drawn[2:4] == ["    a --> b", "    b --> c"]


def test_the_map_shows_every_room() -> None:
    assert set(re.findall(r"\w+", room_map(MAY_IMPORT))) >= set(MAY_IMPORT)


def test_the_page_lists_the_rooms_from_the_ground_up() -> None:
    """In the order of the table, which test_architecture.py compares with the folders."""
    below: set[str] = set()
    for room, _ in ROOMS:
        assert set(MAY_IMPORT[room].split()) <= below, f"{room} stands before a room below it"
        below.add(room)
    assert below == set(MAY_IMPORT)


@pytest.mark.parametrize(("room", "door"), ROOMS)
def test_the_names_of_a_door_exist(room: str, door: str) -> None:
    ring = next((f"{ring}." for ring, rooms in RINGS.items() if room in rooms.split()), "")
    module = importlib.import_module(f"streamrnn.{ring}{room}")
    names = re.findall(r"`(\w+)`", door)
    assert names
    assert [name for name in names if not hasattr(module, name)] == []


def test_every_path_on_the_page_exists() -> None:
    paths = re.findall(r"`([\w./]+/[\w./]+)`", PAGE)
    assert len(paths) > 20
    root = {path: PACKAGE.parent if path.startswith("streamrnn/") else ROOT for path in paths}
    assert [path for path in paths if not (root[path] / path).exists()] == []


DECISIONS = re.findall(
    r"^\| .+ \| (.+) \|$",
    PAGE.partition("## Where is it decided")[2].partition("\n## ")[0],
    re.MULTILINE,
)
PLACES = re.compile(r"((?:`\w+`(?:, )?)+) in `(streamrnn/[\w/]+\.py)`")


def test_what_is_decided_stands_where_the_page_says() -> None:
    for decision in DECISIONS[1:]:
        assert re.search(r"`streamrnn/[\w/]+\.(py|md)`", decision), decision
        for names, path in PLACES.findall(decision):
            for name in re.findall(r"\w+", names):
                defined = rf"^(class |def )?{name}\b( =|\(|:)"
                assert re.search(defined, (PACKAGE.parent / path).read_text(), re.M), (name, path)
    assert len(DECISIONS) > 8


def test_no_row_says_again_where_something_is_decided() -> None:
    places = [set(re.findall(r"`[^`]+`", decision)) for decision in DECISIONS[1:]]
    assert [(a, b) for a, b in permutations(places, 2) if a <= b] == []


THREADS = r"threading\.Thread\(|ThreadPoolExecutor\(|subprocess\.Popen\(|ProcessPoolExecutor\("


def test_every_pool_stands_on_the_page_of_threads() -> None:
    page = (PACKAGE / "nn" / "kernels" / "README.md").read_text()
    pools = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if "plugins" not in path.parts
        if re.search(THREADS, path.read_text())
    }
    assert {path for path in pools if f"`{path}`" not in page} == set()
    assert f"{len(pools)} files start threads or processes" in page
    assert pools == {
        "base/storage/threads.py",
        "cli/process.py",
        "jobs/fitting/seeds.py",
        "nn/kernels/team.py",
    }


@pytest.mark.parametrize("page", ["nn/kernels", "stream/checkpoints"])
def test_what_the_page_of_a_room_names_exists(page: str) -> None:
    """Files by their paths in the package, in a ring, or in the room."""
    text = (PACKAGE / page / "README.md").read_text()
    roots = [PACKAGE, PACKAGE / "stream", PACKAGE / page]
    paths = re.findall(r"`([\w/]+\.py)`", text)
    assert len(paths) > 5
    assert [path for path in paths if not any((root / path).exists() for root in roots)] == []
    for name, path in re.findall(r"`(\w+)` (?:in |\()`([\w/]+\.py)`", text):
        files = [root / path for root in roots if (root / path).exists()]
        assert any(re.search(rf"\b{name}\b", file.read_text()) for file in files), (name, path)


@pytest.mark.parametrize(
    "room", sorted(PACKAGE.rglob("__init__.py")), ids=lambda room: room.parent.name
)
def test_the_files_that_a_room_lists_are_there(room: Path) -> None:
    """A line "- `name`  what it holds" of its docstring."""
    lines = re.findall(r"^- ((?:`[\w/]+`(?:, )?)+)", room.read_text().partition("\nfrom ")[0], re.M)
    names = [name for line in lines for name in re.findall(r"[\w/]+", line)]
    there = {
        path.relative_to(room.parent).with_suffix("").as_posix() for path in room.parent.rglob("*")
    }
    assert set(names) <= there


BEFORE, _, LIST = PAGE.partition("## How to add something")
ADDED = [line.split(" | ") for line in LIST.splitlines() if line.startswith("| a")]
EXAMPLES = [
    (thing[2:], name[1], files + example)
    for thing, files, example, _ in ADDED
    if (name := re.match(r"`(\w+)`", example))
]


@pytest.mark.parametrize(("thing", "name", "files"), EXAMPLES)
def test_an_example_is_named_in_the_files_of_the_list_alone(
    thing: str, name: str, files: str
) -> None:
    """What names one thing of a kind has to be changed for the next one."""
    listed = set(re.findall(r"`(streamrnn/[\w./]+)`", files))
    naming = {
        path.relative_to(PACKAGE.parent).as_posix()
        for path in PACKAGE.rglob("*.py")
        if re.search(rf"\b{name}\b", path.read_text())
    }
    assert naming
    assert naming - listed == set(), thing


def test_the_list_of_what_can_be_added_is_complete() -> None:
    rows = {path.name for path in (ROOT / "tests" / "contracts").glob("rows_*.py")}
    assert {name for name in rows if name not in LIST} == set()
    assert len(ADDED) > 20
    assert len(EXAMPLES) > 7


def test_the_page_is_read_in_one_sitting() -> None:
    """But for the list, in which one looks up a line."""
    assert len(BEFORE.splitlines()) <= 150
