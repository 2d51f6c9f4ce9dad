"""The bytes of a pipeline file, which may be a pipe that the shell opened."""

import errno
import os
import re
import select
import stat
from pathlib import Path

from streamrnn.errors import ConfigError

WAIT_SECONDS = 10
"""How long a pipe may send nothing."""
_PIPE_BYTES = 1 << 24
_OPENED = re.compile(r"/dev/stdin|/dev/fd/\d+|/proc/self/fd/\d+")


def read_file(path: str) -> bytes:
    """Read a regular file, or a pipe of this process: `/dev/stdin`, or `<(…)` in a shell.

    Opening a named pipe would wait for a writer, for good. Raises OSError, ValueError or
    ConfigError.
    """
    mode = os.stat(path).st_mode
    if stat.S_ISFIFO(mode) and _OPENED.fullmatch(path):
        return _read_pipe(path)
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "expected a regular file, found a device or named pipe", path)
    return Path(path).read_bytes()


def _read_pipe(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = bytearray()
        while select.select([descriptor], [], [], WAIT_SECONDS)[0]:
            piece = os.read(descriptor, 1 << 16)
            if not piece:
                return bytes(found)
            found += piece
            if len(found) > _PIPE_BYTES:
                raise ConfigError(f"{path}: more than {_PIPE_BYTES >> 20} MiB: not a pipeline file")
    finally:
        os.close(descriptor)
    raise ConfigError(
        f"{path}: cannot be read: the pipe sent nothing for {WAIT_SECONDS} s. Write the pipeline "
        "to a file"
    )
