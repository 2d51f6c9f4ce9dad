"""The bytes of a file of text, which may be compressed with gzip or zstd."""

from __future__ import annotations

import pyarrow as pa

_CODECS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_HEAD = 4096
_NEWLINES = (b"\n", b"\r")


class RawText:
    """The decompressed bytes of an open file, from the beginning, for Arrow's readers.

    Whether a file is compressed shows at its beginning. Closing this leaves the file open. If the
    file ends with a newline, the bytes `appended` follow once. `tail` are its own last bytes.
    """

    closed = False

    def __init__(self, stream: pa.NativeFile, appended: bytes = b"") -> None:
        start = stream.read_at(4, 0)
        self._source: pa.NativeFile | _Open = _Open(stream)
        for magic, codec in _CODECS.items():
            if start.startswith(magic):
                self._source = pa.CompressedInputStream(pa.PythonFile(self._source, "r"), codec)
        self.tail = b""
        self._appended = appended

    def read(self, size: int = -1) -> bytes:
        """Read at most `size` bytes; none at the end. Raises OSError for a torn compressed file."""
        data: bytes = self._source.read() if size < 0 else self._source.read(size)
        if data:
            self.tail = (self.tail + data[-2:])[-2:]
        elif self.ends_with_newline:
            data, self._appended = self._appended, b""
        return data

    def check_text(self) -> None:
        """Raise ValueError if the bytes at the beginning are no UTF-8 text, or there are none."""
        head = self.read(_HEAD)
        if not head:
            raise ValueError("it is empty: is it still being written?")
        if b"\0" in head:
            raise ValueError("expected text in UTF-8, received bytes of value 0 (UTF-16, binary?)")

    @property
    def ends_with_newline(self) -> bool:
        """Whether what was read does."""
        return self.tail.endswith(_NEWLINES)

    def check_end(self) -> None:
        """Raise ValueError unless what was read ends with a newline."""
        if not self.ends_with_newline:
            raise ValueError(
                "the last line does not end with a newline: it may be cut off, or the file still "
                "being written. If it is complete, append a newline"
            )

    def close(self) -> None:
        """Do nothing: the file stays open for another pass."""

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return False: compressed bytes are read once, in order."""
        return False

    def writable(self) -> bool:
        """Return False."""
        return False


class _Open:
    """A file that a reader cannot close, read from its beginning at a position of its own.

    Arrow reads ahead in a thread, also after the next pass has begun: with the position of the file
    one pass would get bytes of another.
    """

    closed = False

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream = stream
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            size = self._stream.size() - self._position
        data: bytes = self._stream.read_at(size, self._position)
        self._position += len(data)
        return data

    def close(self) -> None:
        pass
