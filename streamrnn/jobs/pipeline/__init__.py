"""`Pipeline`: one class for all that a pipeline file can do."""

from streamrnn.jobs.pipeline.pipeline import Pipeline
from streamrnn.jobs.session import Session
from streamrnn.stream.config import Config
from streamrnn.stream.scoring import Progress, RowCounts, SourceWindow, Summary, Workload
