"""HDF5 files, read in full and defensively: only groups and plain arrays inside the file.

Soft and external links, external and virtual datasets, arrays that declare far more values than
are stored, and groups that are linked more than once are refused.

Texts in attributes are read from the file's bytes, because the HDF5 library hung, read for seconds
or crashed the process when references to stored texts were damaged (found by test_damaged.py).
Source: HDF5 File Format Specification 3.0, IV.A.2 (object headers, attribute message) and III.E
(global heap).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.errors import ModelFileError
from streamrnn.nn.formats.guard import extra_needed

_MAX_OBJECTS = 50_000
_MAX_DEPTH = 64
_MAX_EXPANSION = 100
_FREE_BYTES = 1 << 16
_ATTRIBUTES = ("model_config", "keras_version", "name", "layer_names", "weight_names")
"""The attributes that are read; Keras splits long lists into numbered parts."""

_ATTRIBUTE, _CONTINUATION = 0x0C, 0x10
_FIXED_TEXT, _VARIABLE = 3, 9
_MAX_BLOCKS, _MAX_MESSAGES, _MAX_TEXTS = 256, 65_536, 50_000

H5Text = str | list[str]


@dataclass(frozen=True)
class Tree:
    """The contents of a file: arrays by path, attributes by path of their group, all groups.

    is_legacy: lists of names, not the groups, say which arrays a layer has.
    """

    arrays: dict[str, Array]
    attributes: dict[str, dict[str, H5Text]]
    groups: list[str]
    is_legacy: bool = False

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
        """Return the names of the groups directly under the group at `path`."""
        start = f"{path}/" if path else ""
        inside = (g[len(start) :] for g in self.groups if g.startswith(start) and g != path)
        return [name for name in inside if name and "/" not in name]

    @property
    def size(self) -> int:
        """The number of values in all arrays."""
        return sum(int(array.size) for array in self.arrays.values())


def read(data: bytes, path: str | Path, skip: tuple[str, ...] = ()) -> Tree:
    """Read a file, except the members of its root that are named in `skip`."""
    with extra_needed("h5py", "keras", path):
        import h5py  # noqa: PLC0415 - an extra
    if data[:8] != b"\x89HDF\r\n\x1a\n":  # or a user block precedes it
        raise ModelFileError("damaged, or not an HDF5 file")
    sizes, version = {0: 13, 1: 13, 2: 9, 3: 9}, _int(data, 8, 1)
    if version not in sizes or _int(data, sizes[version], 1) != 8:  # bytes of an address
        raise ModelFileError("Keras does not write this kind of HDF5 file; save it again in Keras")
    walk = _Walk(h5py, data, skip)
    with h5py.File(h5py.h5f.open_file_image(data), "r") as file:
        walk.group(file, "", 0)
    return walk.tree


class _Walk:
    def __init__(self, h5py: ModuleType, data: bytes, skip: tuple[str, ...]) -> None:
        self.h5py = h5py
        self.data = data
        self.budget = _MAX_EXPANSION * len(data) + _FREE_BYTES
        self.skip = skip
        self.visited: set[int] = set()
        self.tree = Tree({}, {}, [])

    def group(self, group: Any, path: str, depth: int) -> None:
        """Read an h5py.Group at a path."""
        location = path or "/"
        if depth > _MAX_DEPTH:
            raise ModelFileError(f"group {location:.80} is nested too deeply")
        address = self.h5py.h5o.get_info(group.id).addr
        if address in self.visited:
            raise ModelFileError(f"group {location} is linked more than once")
        self.visited.add(address)
        if len(self.visited) > _MAX_OBJECTS:
            raise ModelFileError(f"the file has more than {_MAX_OBJECTS:,} groups")
        self.tree.groups.append(path)
        self.tree.attributes[path] = _texts_of(self.data, address)
        for name in group:
            if not path and name in self.skip:
                continue
            inner = f"{path}/{name}" if path else name
            if not isinstance(group.get(name, getlink=True), self.h5py.HardLink):
                raise ModelFileError(f"{inner} is a soft or external link, which is not followed")
            member = group[name]
            if isinstance(member, self.h5py.Group):
                self.group(member, inner, depth + 1)
            elif isinstance(member, self.h5py.Dataset):
                self.tree.arrays[inner] = self._array(member, inner)
            else:
                raise ModelFileError(f"{inner} is neither a group nor an array")

    def _array(self, dataset: Any, path: str) -> Array:
        if dataset.is_virtual or dataset.external:
            raise ModelFileError(f"{path} stores its values in another file, which is not opened")
        is_bfloat16 = dataset.dtype == "V2"
        if (dataset.dtype.kind not in "fiu" and not is_bfloat16) or dataset.shape is None:
            raise ModelFileError(f"{path} is not numeric ({dataset.dtype})")
        declared = dataset.size * dataset.dtype.itemsize
        if dataset.chunks is not None:
            declared = max(declared, int(np.prod(dataset.chunks, dtype=object)))
        self.budget -= declared
        stored = dataset.id.get_storage_size()
        if self.budget < 0 or declared > _MAX_EXPANSION * stored + _FREE_BYTES:
            raise ModelFileError(
                f"{path} declares shape {dataset.shape}, far more values than are stored for it"
            )
        array = np.asarray(dataset[()])
        # The upper half of a float32.
        return (array.view(np.uint16) << np.uint32(16)).view(np.float32) if is_bfloat16 else array


def _texts_of(data: bytes, address: int) -> dict[str, H5Text]:
    """Return attribute -> its text or texts, for the object whose header is at `address`.

    Only `_ATTRIBUTES` with texts are returned; texts stored in parts (name0, name1, …) are joined.
    """
    attributes: dict[str, H5Text] = {}
    for kind, message in _messages(data, address):
        if kind != _ATTRIBUTE:
            continue
        name, space, datatype, values = _attribute(message)
        if name.rstrip("0123456789") in _ATTRIBUTES:
            text = _texts(data, space, datatype, values)
            if text is not None:
                attributes[name] = text
    joined = {name: value for name, value in attributes.items() if name in _ATTRIBUTES}
    for name in _ATTRIBUTES:
        parts: list[list[str]] = []
        while isinstance(part := attributes.get(f"{name}{len(parts)}"), list):
            parts.append(part)
        if parts and name not in joined:
            joined[name] = [text for part in parts for text in part]
    return joined


def _int(data: bytes, offset: int, size: int) -> int:
    if offset < 0 or offset + size > len(data):
        raise ModelFileError("damaged: an address is outside the file")
    return int.from_bytes(data[offset : offset + size], "little")


def _messages(data: bytes, address: int) -> Iterator[tuple[int, bytes]]:
    """Yield (type, contents) of all messages of an object header, of either version."""
    new = data[address : address + 4] == b"OHDR"
    if new:
        flags = _int(data, address + 5, 1)
        offset = address + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        blocks = [(offset + width, _int(data, offset, width))]
        head = 6 if flags & 0x04 else 4
    else:
        blocks, head = [(address + 16, _int(data, address + 8, 4))], 8
    count = 0
    for number, (start, length) in enumerate(blocks):
        if number >= _MAX_BLOCKS:
            raise ModelFileError("damaged: an object header does not end")
        offset, end = start, min(start + length, len(data))
        while offset + head <= end:
            kind = _int(data, offset, 1 if new else 2)
            size = _int(data, offset + (1 if new else 2), 2)
            message = data[offset + head : min(offset + head + size, end)]
            offset += head + size
            count += 1
            if count > _MAX_MESSAGES:
                raise ModelFileError("damaged: an object header has too many messages")
            if kind == _CONTINUATION:
                block, size = _int(message, 0, 8), _int(message, 8, 8)
                blocks.append((block + 4, size - 8) if new else (block, size))
            yield kind, message


def _attribute(message: bytes) -> tuple[str, bytes, bytes, bytes]:
    """Return name, dataspace, datatype and values of an attribute message."""
    version = _int(message, 0, 1)
    sizes = [_int(message, offset, 2) for offset in (2, 4, 6)]
    offset = 9 if version == 3 else 8
    parts = []
    for size in sizes:
        parts.append(message[offset : offset + size])
        offset += -(-size // 8) * 8 if version == 1 else size
    name, datatype, space = parts
    return name.rstrip(b"\0").decode("utf-8"), space, datatype, message[offset:]


def _texts(data: bytes, space: bytes, datatype: bytes, values: bytes) -> H5Text | None:
    version, rank = _int(space, 0, 1), _int(space, 1, 1)
    offset, number = 8 if version == 1 else 4, 1
    for axis in range(rank):
        number *= _int(space, offset + 8 * axis, 8)
    kind, size = _int(datatype, 0, 1) & 15, _int(datatype, 4, 4)
    if kind == _FIXED_TEXT:
        step = max(size, 1)
    elif kind == _VARIABLE and _int(datatype, 1, 1) & 15 == 1:
        step = 16
    else:
        return None
    if number > _MAX_TEXTS or number * step > len(values):
        raise ModelFileError(
            f"damaged: an attribute declares {number} texts, more than it has or may have"
        )
    decoded = []
    for i in range(number):
        value = values[i * step : (i + 1) * step]
        raw = value if kind == _FIXED_TEXT else _stored(data, value)
        decoded.append(raw.split(b"\0")[0].decode("utf-8"))
    return decoded if rank else decoded[0]


def _stored(data: bytes, reference: bytes) -> bytes:
    """Return a text from a global heap. `reference`: its length, the heap's address, its index."""
    length, heap, index = (_int(reference, start, n) for start, n in ((0, 4), (4, 8), (12, 4)))
    if length == 0:
        return b""
    if data[heap : heap + 4] != b"GCOL":
        raise ModelFileError("damaged: a text was not found at its address")
    offset, end = heap + 16, min(heap + _int(data, heap + 8, 8), len(data))
    while offset + 16 <= end:
        number, size = _int(data, offset, 2), _int(data, offset + 8, 8)
        if number == index:
            if length > size or offset + 16 + length > end:
                break
            return data[offset + 16 : offset + 16 + length]
        if number == 0:
            break
        offset += 16 + -(-size // 8) * 8
    raise ModelFileError("damaged: a text was not found at its address")
