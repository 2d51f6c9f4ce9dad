"""Disks that fail, stop, or forget."""

import os
import re
import signal
from pathlib import Path

from streamrnn.base.storage.local import Disk

# In names that are another one in each run.
TOKEN = re.compile(r"[0-9a-f]{16}")


class Stopped(BaseException):
    """The process ends here; nothing of ours may catch it."""


class HastyDisk(Disk):
    """Syncs nothing."""

    def sync(self, descriptor):
        pass

    def sync_folder(self, path):
        pass


class TracingDisk(Disk):
    """Calls `at(point)` before and after every system call that changes the disk."""

    def __init__(self, root, at):
        self.root = root
        self.at = at
        self.paths = {}

    def _name(self, path):
        return TOKEN.sub("TOKEN", os.path.relpath(path, self.root))

    def _around(self, what, call, *arguments):
        self.at(f"before {what}")
        result = call(*arguments)
        self.at(f"after {what}")
        return result

    def create(self, path):
        descriptor = self._around(f"create {self._name(path)}", super().create, path)
        self.paths[descriptor] = path
        return descriptor

    def write(self, descriptor, view):
        name = self._name(self.paths[descriptor])
        return self._around(f"write {name}", super().write, descriptor, view)

    def sync(self, descriptor):
        self._around(f"sync {self._name(self.paths[descriptor])}", self._really_sync, descriptor)

    def _really_sync(self, descriptor):
        """Not worth the time in tests: what a sync is for is what ForgetfulDisk shows."""

    def rename(self, source, target):
        self._around(f"rename to {self._name(target)}", super().rename, source, target)

    def delete(self, path):
        self._around(f"delete {self._name(path)}", super().delete, path)

    def make(self, path):
        self._around(f"make {self._name(path)}", super().make, path)

    def sync_folder(self, path):
        self._around(f"sync folder {self._name(path)}", self._really_sync_folder, path)

    def _really_sync_folder(self, path):
        """As `_really_sync`."""


class StoppingDisk(TracingDisk):
    """Stops at the n-th point: by an exception (the disk works on), or by SIGKILL."""

    def __init__(self, root, number, kill=False):
        super().__init__(root, self.stop)
        self.left = number
        self.kill = kill
        self.point = None

    def stop(self, point):
        if self.left == 0:
            self.point = point
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1
            raise Stopped(point)
        self.left -= 1


class ForgetfulDisk(StoppingDisk):
    """Stops like the power: what was not synced is gone, names and bytes alike.

    `lose()` after the stop undoes, last first, every change of a folder since it was synced (or
    all but the renames: a file system may write names in another order), and empties the files
    that were not.
    """

    def __init__(self, root, number):
        super().__init__(root, number)
        self.undo = []  # (path, is a rename, what to do)
        self.unsynced = {}
        self.moves = []  # (folder it left, folder it came to), neither synced
        self.spare = 0

    def stop(self, point):
        if self.point is not None:
            raise Stopped(self.point)
        super().stop(point)

    def _keep(self, path):
        """A second name for a file, under which it outlives its first one."""
        if not os.path.exists(path):
            return None
        self.spare += 1
        spare = Path(f"{self.root}.spare") / str(self.spare)
        spare.parent.mkdir(exist_ok=True)
        os.link(path, spare)
        return spare

    def create(self, path):
        old = self._keep(path)
        if old:
            os.unlink(path)
        descriptor = super().create(path)
        self.unsynced[descriptor] = os.stat(path).st_ino
        self._note(path, old)
        return descriptor

    def _note(self, path, old, back=None):
        def undo():
            if back is not None and os.path.exists(path):
                os.replace(path, back)
            elif os.path.exists(path):
                os.unlink(path)
            if old is not None:
                os.link(old, path)

        self.undo.append((path, back is not None, undo))

    def _really_sync(self, descriptor):
        self.unsynced.pop(descriptor, None)

    def rename(self, source, target):
        self.at(f"before rename to {self._name(target)}")
        old = self._keep(target)
        os.replace(source, target)
        self._note(target, old, back=source)
        if os.path.dirname(source) != os.path.dirname(target):
            self.moves.append((os.path.dirname(source), os.path.dirname(target)))
        self.at(f"after rename to {self._name(target)}")

    def delete(self, path):
        self._note(path, self._keep(path))
        super().delete(path)

    def _really_sync_folder(self, path):
        self.moves = [(source, target) for source, target in self.moves if target != path]
        assert path not in dict(self.moves), f"a file that left {path} is not yet anywhere else"
        self.undo = [change for change in self.undo if os.path.dirname(change[0]) != path]

    def lose(self, but_renames):
        torn = set(self.unsynced.values())
        stay = {path for path, is_rename, _ in self.undo if but_renames and is_rename}
        for path, _, undo in reversed(self.undo):
            if path not in stay:
                undo()
        for path in Path(self.root).parent.rglob("*"):
            if path.is_file() and path.stat().st_ino in torn:
                os.truncate(path, 0)
        self.undo, self.moves, self.unsynced = [], [], {}
