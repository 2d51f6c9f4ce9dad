"""Output on a local or mounted disk; locks of the system (flock), which end with their process."""

import contextlib
import errno
import io
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from streamrnn.base.storage.files import Files, Output, sink_errors
from streamrnn.errors import SinkError

try:
    import fcntl
except ImportError:  # Windows: `checkpoints` refuses to run there
    fcntl = None  # type: ignore[assignment]

HAS_LOCKS = fcntl is not None


class Disk:
    """The system calls that change a local disk; tests replace them with failing ones."""

    def create(self, path: str) -> int:
        """Create a file and open it to write. Raises OSError if it exists."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def write(self, descriptor: int, view: memoryview) -> int:
        """Write bytes, and return how many were written."""
        return os.write(descriptor, view)

    def sync(self, descriptor: int) -> None:
        """Wait until the file is durable."""
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        """Close the file."""
        os.close(descriptor)

    def rename(self, source: str, target: str) -> None:
        """Rename a file; `target` is replaced."""
        os.replace(source, target)

    def delete(self, path: str) -> None:
        """Delete a file."""
        os.unlink(path)

    def make(self, path: str) -> None:
        """Create a folder."""
        os.mkdir(path)

    def sync_folder(self, path: str) -> None:
        """Wait until the names in a folder are durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.sync(descriptor)
        finally:
            os.close(descriptor)


class LocalOutput(Output):
    """A file on a disk."""

    def __init__(self, disk: Disk, path: str) -> None:
        super().__init__(path)
        self._disk = disk
        with sink_errors("create", path):
            self._descriptor = disk.create(path)

    def _write(self, view: memoryview) -> None:
        while view:
            try:
                done = self._disk.write(self._descriptor, view)
            except InterruptedError:
                continue
            view = view[done:]

    def sync(self) -> None:
        """Wait until what was written is durable. After an error it must not be called again."""
        with sink_errors("sync", self.path):
            self._disk.sync(self._descriptor)

    def finish(self) -> None:
        # After a failed fsync the kernel may have dropped the pages, so it is never retried.
        try:
            self.sync()
        finally:
            self.close()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            with sink_errors("close", self.path):
                self._disk.close(self._descriptor)


class LocalFiles(Files):
    """Files on a local (or mounted) disk. `disk` makes the system calls."""

    local = True
    disk = Disk()

    def __init__(self, root: str) -> None:
        self.root = root

    def show(self, name: str) -> str:
        return os.path.join(self.root, name) if name else self.root

    def make(self, folder: str) -> None:
        path = Path(self.show(folder))
        with sink_errors("make the directory", str(path)):
            for step in [*reversed(path.parents), path]:
                if not step.exists():
                    with contextlib.suppress(FileExistsError):
                        self.disk.make(str(step))
                    self.disk.sync_folder(str(step.parent))
            if not path.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, "not a directory")

    def sizes(self, folder: str) -> dict[str, int]:
        with (
            sink_errors("list", self.show(folder)),
            contextlib.suppress(FileNotFoundError),
            os.scandir(self.show(folder)) as items,
        ):
            return {item.name: item.stat().st_size for item in items if item.is_file()}
        return {}

    def entries(self, folder: str) -> list[str]:
        with sink_errors("list", self.show(folder)), contextlib.suppress(FileNotFoundError):
            return sorted(os.listdir(self.show(folder)))
        return []

    def tree(self) -> list[str]:
        paths, seen, tops = list[str](), set[str](), [self.root]
        for top in tops:  # grows during the loop: links come last, so that real names win
            for folder, folders, names in os.walk(top):
                real = os.path.realpath(folder)
                if real in seen:
                    folders.clear()
                    continue
                seen.add(real)
                inside = (os.path.join(folder, name) for name in folders)
                tops += [path for path in inside if os.path.islink(path)]
                paths += [os.path.join(folder, name) for name in names]
        start = len(os.path.join(self.root, ""))
        return sorted(path[start:] for path in paths)

    def tree_sizes(self) -> dict[str, int]:
        sizes = {}
        for name in self.tree():
            with sink_errors("list", self.show(name)), contextlib.suppress(FileNotFoundError):
                sizes[name] = os.stat(self.show(name)).st_size
        return sizes

    def above(self) -> Iterator[Files]:
        for folder in Path(os.path.realpath(self.root)).parents:
            yield LocalFiles(str(folder))

    def open(self, name: str) -> pa.NativeFile:
        return pa.OSFile(self.show(name), "rb")

    def create(self, name: str) -> LocalOutput:
        return LocalOutput(self.disk, self.show(name))

    def put(self, name: str, data: bytes) -> None:
        temporary = f"{name}.{secrets.token_hex(8)}.tmp"
        output = self.create(temporary)
        try:
            output.write(data)
            output.finish()
        finally:
            output.close()
        self.move(temporary, name)
        self.sync(os.path.dirname(name))

    @contextlib.contextmanager
    def temporary(self, name: str) -> Iterator[str]:
        """Hold the lock of a file that is to be replaced; yield a name for the new file.

        Other writers of the file wait until the lock is released. So a file that has such a name at
        the start was left by a killed writer, and is removed.
        """
        lock = f".{name}.streamrnn.lock"
        leftover = re.compile(re.escape(name) + r"\.[0-9a-f]{16}\.tmp")
        with lock_file(self.show(lock), wait=True):
            try:
                for entry in filter(leftover.fullmatch, self.entries("")):
                    self.delete(entry)
                yield f"{name}.{secrets.token_hex(8)}.tmp"
            finally:
                self.delete(lock)  # before the release: whoever waits will lock another file

    def move(self, source: str, target: str) -> None:
        with sink_errors("rename to", self.show(target)):
            self.disk.rename(self.show(source), self.show(target))

    def delete(self, name: str) -> None:
        with sink_errors("delete", self.show(name)), contextlib.suppress(FileNotFoundError):
            self.disk.delete(self.show(name))

    def sync(self, folder: str) -> None:
        with sink_errors("sync", self.show(folder)):
            self.disk.sync_folder(self.show(folder))

    def clear(self, folder: str) -> None:
        with contextlib.suppress(OSError):
            os.rmdir(self.show(folder))


def lock_file(path: str, *, wait: bool = False) -> io.FileIO:
    """Open and lock a file, created if missing; closing it releases the lock.

    Raises BlockingIOError if another process holds the lock, unless `wait` is set; SinkError if
    the file cannot be opened or locked.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_CREAT
    while True:
        with sink_errors("open", path):
            file = io.FileIO(path, "r+", opener=lambda path, _: os.open(path, flags, 0o666))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.close()
            raise
        except OSError as error:
            file.close()
            raise SinkError(f"cannot lock {path}: {error.strerror}") from error
        # The last holder may have removed the file; by now the path may lead to another file.
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(file.fileno()).st_ino == os.stat(path).st_ino:
                return file
        file.close()
