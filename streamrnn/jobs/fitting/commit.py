"""What a fit commits, as one file: how far it is, and its arrays."""

import hashlib
import io
import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.errors import CheckpointError

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
    """Sums over the windows of an epoch; `rate`: the learning rate of the last one."""

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
    """The next window to train, and what callbacks, optimizer and metrics know.

    `best_epoch` counts from 1, 0 before any validation; `best_errors`: the mean squared error of
    each target of a regression, in that epoch's validation; `waited`: epochs since then;
    `rate_waited`: epochs since the rate was lowered or the loss was best; `rate_scale`: by what
    the rate of the optimizer is multiplied; `stopped`: no epoch follows, as enough did not improve.
    `optimized`: names of the weights for which the optimizer keeps arrays. `metrics`: the sums of
    each.
    """

    epoch: int = 0
    window: int = 0
    trained: int = 0
    sums: EpochSums = field(default_factory=EpochSums)
    history: list[HistoryRow] = field(default_factory=list)
    best_epoch: int = 0
    best_loss: float | None = None
    best_errors: list[float] = field(default_factory=list)
    waited: int = 0
    stopped: bool = False
    rate_scale: float = 1.0
    rate_waited: int = 0
    iterations: int = 0
    optimized: list[str] = field(default_factory=list)
    metrics: list[tuple[float, ...]] = field(default_factory=list)


@dataclass
class FitRecord:
    """What a commit says of a fit.

    `model_digests`: hashes of the model file that the last fit here wrote. `digest`: of the staged
    rows. `done`: results follow; `state`: also the state after the last row. `label_means`: by
    column of [target]. `members`: hashes of the models of several seeds.
    """

    identity: FitIdentity
    model_digests: list[str]
    files: list[FitFile] = field(default_factory=list)
    digest: str = ""
    done: bool = False
    state: bool = False
    label_means: dict[str, float] = field(default_factory=dict)
    members: list[str | None] = field(default_factory=list)
    status: FitStatus = field(default_factory=FitStatus)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Return the record whose `asdict` was written. Raises TypeError for other keys."""
        if "own" in values:  # its first name
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
        # Names of arrays have slashes, which are not those of files in an archive.
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
                f"{owner}: damaged, its checksum is wrong. Start over with --full-refresh and "
                "--overwrite: it is unknown which model file this fit wrote."
            )
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                values = json.loads(archive["facts"].tobytes())
                names = json.loads(archive["names"].tobytes())
                arrays = {name: archive[f"a{number}"] for number, name in enumerate(names)}
            layout = values.pop("layout", None)
            if "standing" in values:  # in place of a status, under the number of this layout
                layout = None
            if layout == _LAYOUT:
                return cls(FitRecord.from_json(values), arrays)
        except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
            raise CheckpointError(
                f"{owner}: edited, and no longer a commit of a fit ({error}). Start over with "
                "--full-refresh."
            ) from None
        written = f"has layout {layout}" if layout else "was written before version 0.1.0"
        raise CheckpointError(
            f"{owner} {written}; this version of streamrnn reads layout {_LAYOUT}. To start "
            "over and keep the model of this fit, copy its file elsewhere, then fit with "
            "--full-refresh and --overwrite."
        )
