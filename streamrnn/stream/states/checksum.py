"""A checksum of a state table in its schema metadata.

Arrow files have none, and Parquet files none of all their bytes. It depends on values and metadata
only, so that any version of pyarrow computes the same, and so do types that Parquet changes: other
units, widths and lists.
"""

import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.errors import DataError

_KEY, _OURS = b"streamrnn.checksum", b"streamrnn."


def with_checksum(table: pa.Table) -> pa.Table:
    """Add a checksum to a table that is to be written to a file."""
    metadata = {**(table.schema.metadata or {}), _KEY: json.dumps(_checksums(table)).encode()}
    return table.replace_schema_metadata(metadata)


def checksum(schema: pa.Schema) -> str:
    """Return what `with_checksum` added; "" if there is none."""
    text: bytes = (schema.metadata or {}).get(_KEY, b"")
    return text.decode(errors="replace")


def checked(table: pa.Table, path: str) -> pa.Table:
    """Return the table of a file without its checksum; one without a checksum is unchanged.

    Raises DataError if the checksum is not that of the table.
    """
    metadata = dict(table.schema.metadata or {})
    text = metadata.pop(_KEY, None)
    if text is None:
        return table
    table = table.replace_schema_metadata(metadata)
    try:
        expected = dict(json.loads(text))
    except (ValueError, TypeError):
        expected = {}
    found = _checksums(table)
    if wrong := [name for name, value in found.items() if expected.get(name) != value]:
        raise DataError(
            f"{path}: the checkpoint is damaged: the checksum of its {' and '.join(wrong)} does "
            "not match. Restore it from a backup, or write it again; if it was edited on purpose, "
            f"remove {_KEY.decode()} from its schema metadata."
        )
    return table


def _checksums(table: pa.Table) -> dict[str, str]:
    return {"metadata": _of_metadata(table), "values": _of_values(table)}


def _of_metadata(table: pa.Table) -> str:
    digest = hashlib.sha256()
    for key, value in sorted((table.schema.metadata or {}).items()):
        if key.startswith(_OURS):
            digest.update(b"%d %d " % (len(key), len(value)) + key + value)
    return digest.hexdigest()


def _of_values(table: pa.Table) -> str:
    digest = hashlib.sha256()
    for name, column in zip(table.column_names, table.combine_chunks().columns, strict=True):
        digest.update(name.encode())
        for chunk in column.chunks:
            _add(digest, chunk)
    return digest.hexdigest()


def _add(digest: "hashlib._Hash", array: pa.Array) -> None:
    """Add which values are present, then those that are; of lists their lengths and values."""
    kind, types = array.type, pa.types
    if isinstance(kind, pa.BaseExtensionType):
        _add(digest, array.storage)
        return
    digest.update(np.packbits(array.is_valid().to_numpy(zero_copy_only=False)).tobytes())
    if types.is_struct(kind):
        for child in array.flatten():
            _add(digest, child)
    elif types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        _add(digest, array.value_lengths().cast(pa.int64()))
        _add(digest, array.flatten())
    elif not types.is_null(kind):
        _add_present(digest, array.drop_null())


def _add_present(digest: "hashlib._Hash", array: pa.Array) -> None:
    """Add values without nulls, of a type that is neither nested nor an extension."""
    array = _in_one_type(array)
    kind, start, end = array.type, array.offset, array.offset + len(array)
    if pa.types.is_boolean(kind):
        digest.update(np.packbits(array.to_numpy(zero_copy_only=False)).tobytes())
    elif pa.types.is_primitive(kind) or pa.types.is_decimal256(kind):
        width = kind.bit_width // 8
        data = array.buffers()[1]
        digest.update(b"" if data is None else memoryview(data)[start * width : end * width])
    else:
        texts = array.cast(pa.large_binary())
        _add_present(digest, pc.binary_length(texts))
        digest.update(b"".join(texts.to_pylist()))


def _in_one_type(array: pa.Array) -> pa.Array:
    """Cast values to the type that a Parquet file may have for them, if that is another one."""
    kind, types = array.type, pa.types
    if types.is_decimal(kind):
        return array.cast(pa.decimal256(76, kind.scale))
    if types.is_date64(kind):
        return array.cast(pa.date32())
    if types.is_timestamp(kind) and kind.unit == "s":
        return array.cast(pa.timestamp("ms", kind.tz), safe=False)
    if types.is_time32(kind) and kind.unit == "s":
        return array.cast(pa.time32("ms"))
    return array
