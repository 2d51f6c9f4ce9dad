"""HDF5 files, read whole and with suspicion: groups and plain arrays, and nothing that leads out.

Refused are soft and external links, external and virtual datasets, arrays that declare far more
than is stored for them, and groups that contain themselves.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from streamrnn.errors import ModelFileError
from streamrnn.formats.guard import require_extra
from streamrnn.formats.keras.h5_attributes import require_plain, texts

_MAX_OBJECTS = 50_000
_MAX_DEPTH = 64
_MAX_EXPANSION = 100
_FREE_BYTES = 1 << 16
_ATTRIBUTES = ("model_config", "keras_version", "name", "layer_names", "weight_names")


@dataclass(frozen=True)
class Tree:
    """What a file holds: arrays by path, attributes by the path of their group, all groups."""

    arrays: dict[str, Any]
    attributes: dict[str, dict[str, Any]]
    groups: list[str]

    def below(self, path: str) -> "Tree":
        """The part under a group, with paths that begin there."""
        start = f"{path}/"
        return Tree(
            {k[len(start) :]: v for k, v in self.arrays.items() if k.startswith(start)},
            {k[len(start) :]: v for k, v in self.attributes.items() if k.startswith(start)}
            | {"": self.attributes.get(path, {})},
            [g[len(start) :] for g in self.groups if g.startswith(start)],
        )

    def children(self, path: str) -> list[str]:
        """The names of the groups right under this one."""
        start = f"{path}/" if path else ""
        inside = (g[len(start) :] for g in self.groups if g.startswith(start) and g != path)
        return [name for name in inside if name and "/" not in name]

    @property
    def size(self) -> int:
        """The number of values in all arrays."""
        return sum(int(array.size) for array in self.arrays.values())


def read(data: bytes, path: str | Path, skip: tuple[str, ...] = ()) -> Tree:
    """All of a file but the groups named in `skip` (at the root)."""
    h5py = require_extra("h5py", "keras", path)
    require_plain(data)
    with h5py.File(h5py.h5f.open_file_image(data), "r") as file:
        return _Walk(h5py, data, skip).run(file)


class _Walk:
    def __init__(self, h5py: Any, data: bytes, skip: tuple[str, ...]) -> None:
        self.h5py = h5py
        self.data = data
        self.room = _MAX_EXPANSION * len(data) + _FREE_BYTES
        self.skip = skip
        self.seen: set[Any] = set()
        self.tree = Tree({}, {}, [])

    def run(self, file: Any) -> Tree:
        self._group(file, "", 0)
        return self.tree

    def _group(self, group: Any, path: str, depth: int) -> None:
        where = path or "/"
        if depth > _MAX_DEPTH:
            raise ModelFileError(f"group {where:.80} is nested too deeply")
        address = self.h5py.h5o.get_info(group.id).addr
        if address in self.seen:
            raise ModelFileError(f"group {where} is linked from two places")
        self.seen.add(address)
        if len(self.seen) > _MAX_OBJECTS:
            raise ModelFileError(f"more than {_MAX_OBJECTS:,} groups")
        self.tree.groups.append(path)
        self.tree.attributes[path] = _joined(texts(self.data, address, _wanted))
        for name in group:
            if not path and name in self.skip:
                continue
            inner = f"{path}/{name}" if path else name
            if not isinstance(group.get(name, getlink=True), self.h5py.HardLink):
                raise ModelFileError(f"{inner} is a soft or external link, which is not followed")
            found = group[name]
            if isinstance(found, self.h5py.Group):
                self._group(found, inner, depth + 1)
            elif isinstance(found, self.h5py.Dataset):
                self.tree.arrays[inner] = self._array(found, inner)
            else:
                raise ModelFileError(f"{inner} is neither a group nor an array")

    def _array(self, dataset: Any, path: str) -> Any:
        if dataset.is_virtual or dataset.external:
            raise ModelFileError(f"{path} keeps its values in another file, which is not opened")
        if dataset.dtype.kind not in "fiu" or dataset.shape is None:
            raise ModelFileError(f"{path} holds no numbers ({dataset.dtype})")
        declared = dataset.size * dataset.dtype.itemsize
        if dataset.chunks is not None:
            declared = max(declared, int(np.prod(dataset.chunks, dtype=object)))
        self.room -= declared
        if self.room < 0 or declared > _MAX_EXPANSION * dataset.id.get_storage_size() + _FREE_BYTES:
            raise ModelFileError(
                f"{path} declares {dataset.shape} values, far more than is stored for it"
            )
        return np.asarray(dataset[()])


def _wanted(name: str) -> bool:
    """Attributes that Keras needs; long ones are split in parts with a number behind."""
    return name.rstrip("0123456789") in _ATTRIBUTES


def _joined(found: dict[str, Any]) -> dict[str, Any]:
    """The attributes, with those in parts (name0, name1, …) put together."""
    made = {name: value for name, value in found.items() if name in _ATTRIBUTES}
    for name in _ATTRIBUTES:
        parts: list[list[str]] = []
        while isinstance(part := found.get(f"{name}{len(parts)}"), list):
            parts.append(part)
        if parts and name not in made:
            made[name] = [text for part in parts for text in part]
    return made
