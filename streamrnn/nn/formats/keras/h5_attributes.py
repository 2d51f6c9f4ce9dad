"""Texts in the attributes of HDF5 groups, read from the file's bytes.

The HDF5 library is not used for this: on damaged references to stored texts it hung, read for
seconds or crashed the process (found by test_damaged.py). Source: HDF5 File Format Specification
3.0, IV.A.2 (object headers, attribute message) and III.E (global heap).
"""

from collections.abc import Callable, Iterator

from streamrnn.errors import ModelFileError

_ATTRIBUTE, _CONTINUATION = 0x0C, 0x10
_FIXED_TEXT, _VARIABLE = 3, 9
_MAX_BLOCKS, _MAX_MESSAGES, _MAX_TEXTS = 256, 65_536, 50_000


H5Text = str | list[str]


def texts(data: bytes, address: int, is_needed: Callable[[str], bool]) -> dict[str, H5Text]:
    """Return attribute -> its text or texts, for the object whose header is at `address`.

    is_needed: whether the attribute of a name is read. Attributes without texts are left out.
    """
    by_name = {}
    for kind, message in _messages(data, address):
        if kind != _ATTRIBUTE:
            continue
        name, space, datatype, values = _attribute(message)
        if is_needed(name):
            text = _texts(data, space, datatype, values)
            if text is not None:
                by_name[name] = text
    return by_name


def require_plain(data: bytes) -> None:
    """Raise ModelFileError for a file with a user block, or whose addresses do not have 8 bytes."""
    sizes = {0: 13, 1: 13, 2: 9, 3: 9}
    if data[:8] != b"\x89HDF\r\n\x1a\n":
        raise ModelFileError("damaged, or not an HDF5 file")
    version = _int(data, 8, 1)
    if version not in sizes or _int(data, sizes[version], 1) != 8:
        raise ModelFileError("this kind of HDF5 file is not written by Keras")


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
        raise ModelFileError(f"damaged: an attribute declares {number} texts but has fewer")
    decoded = []
    for i in range(number):
        value = values[i * step : (i + 1) * step]
        raw = value if kind == _FIXED_TEXT else _stored(data, value)
        decoded.append(raw.split(b"\0")[0].decode("utf-8"))
    return decoded[0] if count is None else decoded


def _count(space: bytes) -> int | None:
    """Return the number of values, None for a scalar."""
    version, rank = _int(space, 0, 1), _int(space, 1, 1)
    if rank == 0:
        return None
    offset = 8 if version == 1 else 4
    count = 1
    for axis in range(rank):
        count *= _int(space, offset + 8 * axis, 8)
    return count


def _stored(data: bytes, reference: bytes) -> bytes:
    """Return a text in a global heap, given its length, the heap's address and its index."""
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
