"""Options of a run that are not in the pipeline file."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from streamrnn.stream.config.schema import ModelSection
from streamrnn.stream.config.values import EngineType, NewModel, OnChange
from streamrnn.stream.scoring.summary import Progress


@dataclass(frozen=True)
class RunOptions:
    """Options of one run.

    `full_refresh` starts over, with `force` without rows that the source lacks; `force` resumes
    past used files that changed and past a vocabulary that has none of the values; `new_model`
    replaces [model] on_change; `reload` first rewinds to the last commit before the used files that
    changed, or before the named ones; `follow` looks for new files every `poll` seconds; `engine`
    replaces [engine] type; `progress` is called after each record batch; once `stop` is set the run
    commits and ends.
    """

    full_refresh: bool = False
    force: bool = False
    new_model: NewModel | None = None
    reload: bool | Sequence[str] = False
    follow: bool = False
    engine: EngineType | None = None
    poll: float = 1.0
    progress: Callable[[Progress], None] | None = None
    stop: threading.Event = field(default_factory=threading.Event)

    def on_change(self, model: ModelSection) -> OnChange:
        """Return what to do if the model is not that of the last run."""
        return self.new_model or model.on_change
