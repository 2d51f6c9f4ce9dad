"""HDF5 files, read in full and defensively: only groups and plain arrays inside the file.

Refused are soft and external links, external and virtual datasets, arrays that declare far more
values than are stored, and groups that contain themselves.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.errors import ModelFileError
from streamrnn.nn.formats.guard import extra_needed
from streamrnn.nn.formats.keras.h5_attributes import H5Text, require_plain, texts

_MAX_OBJECTS = 50_000
_MAX_DEPTH = 64
_MAX_EXPANSION = 100
_FREE_BYTES = 1 << 16
_ATTRIBUTES = ("model_config", "keras_version", "name", "layer_names", "weight_names")


class _Group(Protocol):
    """An h5py.Group."""

    @property
    def id(self) -> object: ...
    def __iter__(self) -> Iterator[str]: ...
    def __getitem__(self, name: str) -> object: ...
    def get(self, name: str, *, getlink: bool) -> object: ...


class _DatasetId(Protocol):
    def get_storage_size(self) -> int: ...


class _Dataset(Protocol):
    """An h5py.Dataset. shape: None without values; chunks: None if contiguous."""

    is_virtual: bool
    external: object
    dtype: np.dtype[Any]
    shape: tuple[int, ...] | None
    size: int
    chunks: tuple[int, ...] | None

    @property
    def id(self) -> _DatasetId: ...
    def __getitem__(self, index: tuple[()]) -> object: ...


@dataclass(frozen=True)
class Tree:
    """The contents of a file: arrays by path, attributes by path of their group, all groups."""

    arrays: dict[str, Array]
    attributes: dict[str, dict[str, H5Text]]
    groups: list[str]

    def below(self, path: str) -> "Tree":
        """Return the part under a group, with paths relative to it."""
        start = f"{path}/"
        return Tree(
            {k[len(start) :]: v for k, v in self.arrays.items() if k.startswith(start)},
            {k[len(start) :]: v for k, v in self.attributes.items() if k.startswith(start)}
            | {"": self.attributes.get(path, {})},
            [g[len(start) :] for g in self.groups if g.startswith(start)],
        )

    def children(self, path: str) -> list[str]:
        """Return the names of the groups directly under this one."""
        start = f"{path}/" if path else ""
        inside = (g[len(start) :] for g in self.groups if g.startswith(start) and g != path)
        return [name for name in inside if name and "/" not in name]

    @property
    def size(self) -> int:
        """The number of values in all arrays."""
        return sum(int(array.size) for array in self.arrays.values())


def read(data: bytes, path: str | Path, skip: tuple[str, ...] = ()) -> Tree:
    """Read a file except the groups named in `skip` (at the root)."""
    with extra_needed("h5py", "keras", path):
        import h5py  # noqa: PLC0415 - an extra
    require_plain(data)
    with h5py.File(h5py.h5f.open_file_image(data), "r") as file:
        return _Walk(h5py, data, skip).run(file)


class _Walk:
    def __init__(self, h5py: ModuleType, data: bytes, skip: tuple[str, ...]) -> None:
        self.h5py = h5py
        self.data = data
        self.budget = _MAX_EXPANSION * len(data) + _FREE_BYTES
        self.skip = skip
        self.visited: set[int] = set()
        self.tree = Tree({}, {}, [])

    def run(self, file: _Group) -> Tree:
        self._group(file, "", 0)
        return self.tree

    def _group(self, group: _Group, path: str, depth: int) -> None:
        location = path or "/"
        if depth > _MAX_DEPTH:
            raise ModelFileError(f"group {location:.80} is nested too deeply")
        address = self.h5py.h5o.get_info(group.id).addr
        if address in self.visited:
            raise ModelFileError(f"group {location} is linked more than once")
        self.visited.add(address)
        if len(self.visited) > _MAX_OBJECTS:
            raise ModelFileError(f"more than {_MAX_OBJECTS:,} groups")
        self.tree.groups.append(path)
        self.tree.attributes[path] = _joined(texts(self.data, address, _is_needed))
        for name in group:
            if not path and name in self.skip:
                continue
            inner = f"{path}/{name}" if path else name
            if not isinstance(group.get(name, getlink=True), self.h5py.HardLink):
                raise ModelFileError(f"{inner} is a soft or external link, which is not followed")
            member = group[name]
            if isinstance(member, self.h5py.Group):
                self._group(member, inner, depth + 1)
            elif isinstance(member, self.h5py.Dataset):
                self.tree.arrays[inner] = self._array(member, inner)
            else:
                raise ModelFileError(f"{inner} is neither a group nor an array")

    def _array(self, dataset: _Dataset, path: str) -> Array:
        if dataset.is_virtual or dataset.external:
            raise ModelFileError(f"{path} stores its values in another file, which is not opened")
        if dataset.dtype.kind not in "fiu" or dataset.shape is None:
            raise ModelFileError(f"{path} is not numeric ({dataset.dtype})")
        declared = dataset.size * dataset.dtype.itemsize
        if dataset.chunks is not None:
            declared = max(declared, int(np.prod(dataset.chunks, dtype=object)))
        self.budget -= declared
        stored = dataset.id.get_storage_size()
        if self.budget < 0 or declared > _MAX_EXPANSION * stored + _FREE_BYTES:
            raise ModelFileError(
                f"{path} declares {dataset.shape} values, far more than are stored for it"
            )
        return np.asarray(dataset[()])


def _is_needed(name: str) -> bool:
    """Return whether Keras needs an attribute; long ones are split into numbered parts."""
    return name.rstrip("0123456789") in _ATTRIBUTES


def _joined(attributes: dict[str, H5Text]) -> dict[str, H5Text]:
    """Return the attributes, joining those stored in parts (name0, name1, …)."""
    joined = {name: value for name, value in attributes.items() if name in _ATTRIBUTES}
    for name in _ATTRIBUTES:
        parts: list[list[str]] = []
        while isinstance(part := attributes.get(f"{name}{len(parts)}"), list):
            parts.append(part)
        if parts and name not in joined:
            joined[name] = [text for part in parts for text in part]
    return joined
