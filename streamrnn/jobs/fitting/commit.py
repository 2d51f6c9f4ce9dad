"""What a fit commits, as one file: its progress and its arrays."""

import hashlib
import io
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streamrnn.base.arrays import Array
from streamrnn.base.storage import LocalFiles, sink_errors
from streamrnn.errors import CheckpointError, ConfigError
from streamrnn.stream.checkpoints import Lock

_LAYOUT = 1

HistoryRow = dict[str, int | float]
"""One epoch: epoch, updates, rows, loss, metrics, val_loss and so on, by name."""
FitIdentity = dict[str, object]
"""What two fits must have in common for one to resume the other, by dotted keys."""


class FitFile(NamedTuple):
    """A file of the source, as it was when the fit began."""

    name: str
    size: int
    mtime_ns: int


@dataclass
class EpochSums:
    """Sums over the windows of an epoch; `rate`: the learning rate at the last window."""

    loss: float = 0.0
    count: int = 0
    steps: int = 0
    updates: int = 0
    norm: float = 0.0
    clipped: int = 0
    rate: float = 0.0
    seconds: float = 0.0

    @property
    def mean_loss(self) -> float:
        """The mean loss of all steps that counted."""
        return self.loss / self.count if self.count else math.nan


@dataclass
class FitStatus:
    """The next window to train, and the state of callbacks, optimizer and metrics.

    `best_epoch` counts from 1, and is 0 before any validation; `best_errors`: the mean squared
    error of each target of a regression, in the validation of that epoch; `shifts`: what to add to
    each quantile, computed in the same validation; `waited`: epochs since the best one;
    `rate_waited`: epochs since the rate was lowered or the loss was best; `rate_scale`: the factor
    of the optimizer's rate; `stopped`: no epoch follows, because too many epochs in a row were not
    better. `optimized`: names of the weights for which the optimizer keeps arrays. `metrics`: the
    sums of each metric.
    """

    epoch: int = 0
    window: int = 0
    trained: int = 0
    sums: EpochSums = field(default_factory=EpochSums)
    history: list[HistoryRow] = field(default_factory=list)
    best_epoch: int = 0
    best_loss: float | None = None
    best_errors: list[float] = field(default_factory=list)
    shifts: list[float] = field(default_factory=list)
    waited: int = 0
    stopped: bool = False
    rate_scale: float = 1.0
    rate_waited: int = 0
    iterations: int = 0
    optimized: list[str] = field(default_factory=list)
    metrics: list[tuple[float, ...]] = field(default_factory=list)


@dataclass
class FitRecord:
    """What a commit records of a fit.

    `model_digests`: the hash of the model file that the last fit here wrote, [] without such a fit.
    `digest`: a hash of the staged rows. `done`: the results are written; `state`: they include the
    state after the last row. `label_means`: the mean of each label of [target]. `trained_to`: type
    of the times -> time of the last training row, in ticks. `members`: hashes of the models of
    several seeds.
    """

    identity: FitIdentity
    model_digests: list[str]
    files: list[FitFile] = field(default_factory=list)
    digest: str = ""
    done: bool = False
    state: bool = False
    label_means: dict[str, float] = field(default_factory=dict)
    trained_to: dict[str, int] = field(default_factory=dict)
    members: list[str | None] = field(default_factory=list)
    status: FitStatus = field(default_factory=FitStatus)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Return the record of a written `asdict`. Raises TypeError or KeyError for other keys."""
        if "own" in values:  # the former name of model_digests
            values["model_digests"] = values.pop("own")
        files = [FitFile(*file) for file in values["files"]]
        status = FitStatus(**values["status"])
        status.sums = EpochSums(**values["status"]["sums"])
        status.metrics = [tuple(sums) for sums in status.metrics]
        return cls(**{**values, "files": files, "status": status})


@dataclass
class FitCommit:
    """All that a fit needs to resume."""

    record: FitRecord
    arrays: dict[str, Array] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return a checksum, a line break, and an .npz file."""
        text = json.dumps({"layout": _LAYOUT, **asdict(self.record)})
        stream = io.BytesIO()
        # Names of arrays have slashes, which would be folders in an archive.
        names = sorted(self.arrays)
        entries = {f"a{number}": self.arrays[name] for number, name in enumerate(names)}
        np.savez(
            stream,
            facts=np.frombuffer(text.encode(), np.uint8),
            names=np.frombuffer(json.dumps(names).encode(), np.uint8),
            **entries,  # type: ignore[arg-type]
        )
        data = stream.getvalue()
        return hashlib.sha256(data).hexdigest().encode() + b"\n" + data

    @classmethod
    def of_bytes(cls, data: bytes, owner: str) -> "FitCommit":
        """Read what `to_bytes` returned. Raises CheckpointError that names the `owner`."""
        checksum, _, content = data.partition(b"\n")
        if hashlib.sha256(content).hexdigest().encode() != checksum:
            raise CheckpointError(
                f"{owner} is damaged (its checksum is wrong). Start over with --full-refresh and "
                "--overwrite: it is unknown which model file this fit wrote."
            )
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                values = json.loads(archive["facts"].tobytes())
                names = json.loads(archive["names"].tobytes())
                arrays = {name: archive[f"a{number}"] for number, name in enumerate(names)}
            layout = values.pop("layout", None)
            if "standing" in values:  # an older layout has this number, but no "status"
                layout = None
            if layout == _LAYOUT:
                return cls(FitRecord.from_json(values), arrays)
        except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
            raise CheckpointError(
                f"{owner} was edited, and is no longer a commit of a fit ({error}). Start over "
                "with --full-refresh."
            ) from None
        written = f"has layout {layout}" if layout else "was written before version 0.1.0"
        raise CheckpointError(
            f"{owner} {written}; this version of streamrnn reads layout {_LAYOUT}. To start "
            "over and keep the model of this fit, copy its file elsewhere, then fit with "
            "--full-refresh and --overwrite."
        )


_COMMIT, _LOCK, _NOTICE = "commit", "lock", ".gitignore"
_INITIAL, _NEXT = "initial.safetensors", "next."
MEMBERS = "seeds"
"""Name of the folder for the fits of several seeds, which has a folder for each seed."""
HISTORY_FILE, STATE_FILE = "history.parquet", "state.parquet"
"""Names of results in the folder."""


class FitFolder:
    """The folder `<model path>.fit`: each commit replaces the last one, in a single rename.

    If the model path is a link, the folder is beside the file that the link leads to. A folder
    without a commit is removed. A commit is durable before the fit continues. Staged rows are made
    again when a fit resumes.
    """

    def __init__(self, path: str | Path) -> None:
        model = Path(path)
        self.model = model = model.resolve() if model.is_symlink() else model
        self.path = model.with_name(f"{model.name}.fit")
        self.rows = self.path / "rows"  # staged
        self._files = LocalFiles(str(self.path))

    def result(self) -> FitRecord | None:
        """Return the record of the fit that wrote the present model file; None if it is unknown."""
        try:
            last, digest = self.read(), self.model_digest()
        except (CheckpointError, ConfigError):
            return None
        if last is None or not last.record.done or last.record.model_digests[-1:] != [digest]:
            return None
        return last.record

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one fit, and remove the staged rows at its end.

        Raises CheckpointError if another process holds the folder.
        """
        self._files.make("")
        lock = Lock(self._files, _LOCK)
        try:
            present = self._files.entries("")
            for name in present:
                if name.endswith((".tmp", ".streamrnn.lock")):  # left by an interrupted write
                    self._files.delete(name)
            if _NOTICE not in present:
                self._files.put(_NOTICE, b"*\n")
            yield
        finally:
            unused = False
            try:
                shutil.rmtree(self.rows, ignore_errors=True)
                unused = _COMMIT not in self._files.entries("")
                for name in (_INITIAL, _NOTICE) if unused else ():
                    self._files.delete(name)
            finally:
                lock.release(remove=unused)
            if unused:
                self._files.clear("")

    def read(self) -> FitCommit | None:
        """Return the last commit; None if there is none."""
        try:
            data = self._files.read(_COMMIT)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CheckpointError(f"{self.path / _COMMIT}: {error}") from None
        return FitCommit.of_bytes(data, str(self.path / _COMMIT))

    def last(self) -> FitCommit | None:
        """Return the last commit, after putting results of a finished fit into place.

        Other pending results are removed.
        """
        last = self.read()
        if last is not None and last.record.done:
            self.publish(last.record)
        else:
            self.discard_pending()
        return last

    def commit(self, commit: FitCommit) -> None:
        """Replace the last commit."""
        self._files.put(_COMMIT, commit.to_bytes())

    def finish(self, commit: FitCommit, model: bytes, *, state: bool) -> None:
        """Commit a finished fit with its model, and put its results into place."""
        digests = [hashlib.sha256(model).hexdigest()]
        record = replace(commit.record, model_digests=digests, done=True, state=state)
        arrays = {**commit.arrays, "model": np.frombuffer(model, np.uint8)}
        self.commit(FitCommit(record, arrays))
        self.publish(record)

    def withdraw(self) -> None:
        """Remove the last commit, so that the folder is as it was before the fit."""
        self._files.delete(_COMMIT)

    def begin(self, initial: bytes) -> None:
        """Store the model that a fit starts from."""
        self._files.put(_INITIAL, initial)

    def initial(self) -> bytes:
        """Return the model that the fit in this folder started from."""
        return self._files.read(_INITIAL)

    def pending(self, name: str) -> str:
        """Return the path for a result that `publish` will put into place."""
        return self._files.show(f"{_NEXT}{name}")

    def put_pending(self, name: str, data: bytes) -> None:
        """Write a result that `publish` will put into place."""
        self._files.put(f"{_NEXT}{name}", data)

    def put_history(self, history: pa.Table) -> None:
        """Write the epochs of a fit as a result that `publish` will put into place."""
        file = io.BytesIO()
        pq.write_table(history, file)
        self.put_pending(HISTORY_FILE, file.getvalue())

    def publish(self, record: FitRecord) -> None:
        """Put all pending results into place, after the commit of a finished fit.

        Members of earlier fits are removed. The call can be repeated: if a fit dies during it, its
        next start does the rest.
        """
        for name in self._files.entries(""):
            if name.startswith(_NEXT):
                result = name.removeprefix(_NEXT)
                in_folder = result != self.model.name
                self._files.move(name, result if in_folder else f"../{result}")
        if not record.state:
            self._files.delete(STATE_FILE)  # of an earlier fit
        self._files.sync("..")  # first the folder that the model moved to
        self._files.sync("")
        first = record.identity.get("train.seed", 0)
        seeds = record.identity.get("train.seeds", 1)
        assert isinstance(first, int)
        assert isinstance(seeds, int)
        kept = {str(seed) for seed in range(first, first + seeds)} if seeds > 1 else set()
        folder = self.path / MEMBERS
        for member in list(folder.iterdir()) if folder.is_dir() else ():
            if member.name.isdigit() and member.name not in kept:
                shutil.rmtree(member, ignore_errors=True)
        if not kept:
            with suppress(OSError):  # missing, or with other files in it
                folder.rmdir()

    def restore_model(self, commit: FitCommit) -> None:
        """Write the model of a finished fit again, unless the model file is there, unchanged."""
        if self.model_digest() != commit.record.model_digests[-1]:
            LocalFiles(os.fspath(self.model.parent)).put(
                self.model.name, commit.arrays["model"].tobytes()
            )

    def discard_pending(self) -> None:
        """Remove results that no commit names."""
        for name in self._files.entries(""):
            if name.startswith(_NEXT):
                self._files.delete(name)

    def empty_rows(self) -> Path:
        """Empty or make the folder for staged rows, and return it."""
        with sink_errors("write", str(self.rows)):
            shutil.rmtree(self.rows, ignore_errors=True)
            self.rows.mkdir()
        return self.rows

    def model_digest(self) -> str | None:
        """Return the hash of the model file; None if there is no such file."""
        try:
            return LocalFiles(os.fspath(self.model.parent)).sha256(self.model.name)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(f"[model] path: {self.model}: {error}") from None
