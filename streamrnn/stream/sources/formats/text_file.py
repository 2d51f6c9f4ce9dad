"""The bytes of a file of text, which may be compressed with gzip or zstd."""

import pyarrow as pa

# A file name ends in the key; a file starts with the bytes.
_CODECS = {".gz": ("gzip", b"\x1f\x8b"), ".zst": ("zstd", b"\x28\xb5\x2f\xfd")}
TEXT_BLOCK = 1 << 20
_HEAD = 4096
NEWLINES = (b"\n", b"\r")
CUT_OFF = (
    "does not end with a newline: it may be cut off, or the file still being written. If it is "
    "complete, append a newline"
)


def also_compressed(*suffixes: str) -> tuple[str, ...]:
    """Return suffixes of file names, each also with the ending of each compression.

    >>> also_compressed(".csv")
    ('.csv', '.csv.gz', '.csv.zst')
    """
    return tuple(f"{suffix}{ending}" for suffix in suffixes for ending in ("", *_CODECS))


def decompressed(stream: pa.NativeFile) -> pa.NativeFile:
    """Return the text of an open file from its beginning, at a position of its own.

    The beginning of a file tells whether it is compressed. Reading raises OSError if it is torn.
    Arrow's readers read ahead in threads that nothing waits for: these must run no Python code, or
    the process aborts if it ends meanwhile.
    """
    codec = _codec(stream)
    raw = stream.get_stream(0, stream.size())
    return pa.CompressedInputStream(raw, codec) if codec else raw


def _codec(stream: pa.NativeFile) -> str:
    start = stream.read_at(4, 0)
    return next((codec for codec, magic in _CODECS.values() if start.startswith(magic)), "")


class TextFile:
    """The text of an open file, which is read once if a block holds it.

    `whole` is then the whole text, else None; `head` its first bytes. Raises ValueError if one of
    these is 0, as in UTF-16, or the file is empty; OSError if a compressed file is torn.
    """

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream = stream
        text = decompressed(stream)
        block = text.read(TEXT_BLOCK)
        self.head: bytes = block[:_HEAD]
        self.whole: bytes | None = None if text.read(1) else block
        if not self.head:
            raise ValueError("it is empty: is it still being written?")
        if b"\0" in self.head:
            raise ValueError("expected text in UTF-8, received bytes of value 0 (UTF-16, binary?)")

    def open(self) -> pa.NativeFile:
        """Return the text from its beginning, at a position of its own."""
        if self.whole is not None:
            return pa.BufferReader(self.whole)
        return decompressed(self._stream)

    def ending(self, size: int) -> bytes:
        """Return the last `size` bytes. A large compressed file is read to its end."""
        if self.whole is not None:
            return self.whole[-size:]
        if not _codec(self._stream):
            start = max(self._stream.size() - size, 0)
            return bytes(self._stream.read_at(size, start))
        text, tail = self.open(), b""
        while data := text.read(TEXT_BLOCK):
            tail = (tail + data)[-size:]
        return tail


def shows_rows(stream: pa.NativeFile, header: int) -> bool:
    """Return whether the beginning of a file has lines after its header.

    If so, it has rows, or is damaged. False if the beginning does not tell.
    """
    try:
        text = decompressed(stream).read(_HEAD)
    except OSError:
        return False
    lines = [line for line in text.splitlines() if line.strip()]
    # In quotes a line may go on in the next one.
    return len(lines) > header and b"".join(lines[:header]).count(b'"') % 2 == 0
