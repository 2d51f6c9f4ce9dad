"""Texts in the attributes of HDF5 groups, read from the file's bytes.

The HDF5 library is left out of this on purpose: on damaged references to stored texts it hung, read
for seconds and crashed the process (found by test_damaged.py). Source: HDF5 File Format
Specification 3.0, IV.A.2 (object headers, attribute message) and III.E (global heap).
"""

from collections.abc import Iterator
from typing import Any

from streamrnn.errors import ModelFileError

_ATTRIBUTE, _CONTINUATION = 0x0C, 0x10
_FIXED_TEXT, _VARIABLE = 3, 9
_MAX_BLOCKS, _MAX_MESSAGES, _MAX_TEXTS = 256, 65_536, 50_000


def texts(data: bytes, address: int, wanted: Any) -> dict[str, Any]:
    """Attributes of the object whose header is at `address`: a text, or a list of texts, by name.

    wanted: name -> is it to be read? Others, and those that hold no texts, are left out.
    """
    found = {}
    for kind, message in _messages(data, address):
        if kind != _ATTRIBUTE:
            continue
        name, space, datatype, values = _attribute(message)
        if wanted(name):
            made = _texts(data, space, datatype, values)
            if made is not None:
                found[name] = made
    return found


def require_plain(data: bytes) -> None:
    """Raise ModelFileError for a file with a user block, or with addresses of another size."""
    sizes = {0: 13, 1: 13, 2: 9, 3: 9}
    if data[:8] != b"\x89HDF\r\n\x1a\n":
        raise ModelFileError("damaged, or no HDF5 file")
    version = _int(data, 8, 1)
    if version not in sizes or _int(data, sizes[version], 1) != 8:
        raise ModelFileError("an HDF5 file of a kind that Keras does not write")


def _int(data: bytes, at: int, size: int) -> int:
    if at < 0 or at + size > len(data):
        raise ModelFileError("damaged: an address lies outside the file")
    return int.from_bytes(data[at : at + size], "little")


def _messages(data: bytes, address: int) -> Iterator[tuple[int, bytes]]:
    """(type, contents) of all messages of an object header, of either version."""
    new = data[address : address + 4] == b"OHDR"
    if new:
        flags = _int(data, address + 5, 1)
        at = address + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        blocks = [(at + width, _int(data, at, width))]
        head = 6 if flags & 0x04 else 4
    else:
        blocks, head = [(address + 16, _int(data, address + 8, 4))], 8
    count = 0
    for number, (at, length) in enumerate(blocks):
        if number >= _MAX_BLOCKS:
            raise ModelFileError("damaged: an object header does not end")
        end = min(at + length, len(data))
        while at + head <= end:
            kind = _int(data, at, 1 if new else 2)
            size = _int(data, at + (1 if new else 2), 2)
            message = data[at + head : min(at + head + size, end)]
            at += head + size
            count += 1
            if count > _MAX_MESSAGES:
                raise ModelFileError("damaged: an object header has too many messages")
            if kind == _CONTINUATION:
                start, more = _int(message, 0, 8), _int(message, 8, 8)
                blocks.append((start + 4, more - 8) if new else (start, more))
            yield kind, message


def _attribute(message: bytes) -> tuple[str, bytes, bytes, bytes]:
    """Name, dataspace, datatype and values of an attribute message."""
    version = _int(message, 0, 1)
    sizes = [_int(message, at, 2) for at in (2, 4, 6)]
    at = 9 if version == 3 else 8
    parts = []
    for size in sizes:
        parts.append(message[at : at + size])
        at += -(-size // 8) * 8 if version == 1 else size
    name, datatype, space = parts
    return name.rstrip(b"\0").decode("utf-8"), space, datatype, message[at:]


def _texts(data: bytes, space: bytes, datatype: bytes, values: bytes) -> Any:
    count = _count(space)
    kind, size = _int(datatype, 0, 1) & 15, _int(datatype, 4, 4)
    if kind == _FIXED_TEXT:
        step = max(size, 1)
    elif kind == _VARIABLE and _int(datatype, 1, 1) & 15 == 1:
        step = 16
    else:
        return None
    number = 1 if count is None else count
    if number > _MAX_TEXTS or number * step > len(values):
        raise ModelFileError(f"damaged: an attribute declares {number} texts and has fewer")
    made = []
    for i in range(number):
        value = values[i * step : (i + 1) * step]
        raw = value if kind == _FIXED_TEXT else _stored(data, value)
        made.append(raw.split(b"\0")[0].decode("utf-8"))
    return made[0] if count is None else made


def _count(space: bytes) -> int | None:
    """The number of values, None for a single one."""
    version, rank = _int(space, 0, 1), _int(space, 1, 1)
    if rank == 0:
        return None
    at = 8 if version == 1 else 4
    count = 1
    for axis in range(rank):
        count *= _int(space, at + 8 * axis, 8)
    return count


def _stored(data: bytes, reference: bytes) -> bytes:
    """A text in a global heap: its length, the heap's address, its number there."""
    length, heap, wanted = (_int(reference, at, n) for at, n in ((0, 4), (4, 8), (12, 4)))
    if length == 0:
        return b""
    if data[heap : heap + 4] != b"GCOL":
        raise ModelFileError("damaged: a text is not where it should be")
    at, end = heap + 16, min(heap + _int(data, heap + 8, 8), len(data))
    while at + 16 <= end:
        number, size = _int(data, at, 2), _int(data, at + 8, 8)
        if number == wanted:
            if length > size or at + 16 + length > end:
                break
            return data[at + 16 : at + 16 + length]
        if number == 0:
            break
        at += 16 + -(-size // 8) * 8
    raise ModelFileError("damaged: a text is not where it should be")
