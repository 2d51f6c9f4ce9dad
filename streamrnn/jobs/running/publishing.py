"""Bring the tables of [publish] up to date when a run begins, and after each commit."""

import logging
import time
from dataclasses import asdict

from streamrnn.errors import PublishError
from streamrnn.jobs.outputs import Publisher
from streamrnn.stream.checkpoints import Manifest
from streamrnn.stream.config import Config
from streamrnn.stream.scoring import Summary

_LOGGER = logging.getLogger("streamrnn.pipeline")
RETRY_SECONDS = 30.0
"""Seconds that a run with --follow waits after a failure before it retries without a new commit."""


class RunPublisher:
    """The tables of one run; `check` and `titles` are as in `Publisher`.

    A failure does not stop the run: it is logged as a warning, and the tables are retried when the
    files that were listed have been scored. A failure that remains at the end is an error, raised
    after everything is committed.
    """

    def __init__(self, config: Config, summary: Summary) -> None:
        folder = config.sink.folder
        self._publisher = Publisher("", (), {})
        if folder is not None:
            self._publisher = Publisher.of(config.canonical(), folder)
        self.check, self.titles = self._publisher.check, self._publisher.titles
        self._summary = summary
        self._error: PublishError | None = None
        self._tried = float("-inf")
        self._commit: int | None = None  # the last commit that all tables have

    def warn_of_abandoned(self, before: Manifest | None) -> None:
        """Warn of tables that the last commit names and that this run no longer updates."""
        for table in [] if before is None else self._publisher.abandoned_tables(before.config):
            _LOGGER.warning("%s", table)

    def after_commit(self, manifest: Manifest | None) -> None:
        """Publish a commit; if publishing failed before, leave it to `publish` or `retry`."""
        if self._error is None:
            self.publish(manifest)

    def retry(self, manifest: Manifest | None) -> None:
        """Retry what failed, if the last try was more than `RETRY_SECONDS` ago."""
        if self._error is not None and time.monotonic() - self._tried > RETRY_SECONDS:
            self.publish(manifest)

    def publish(self, manifest: Manifest | None, *, merged: bool = False) -> None:
        """Bring all tables up to date. `merged`: the last commit only merged parts."""
        if not self.titles or manifest is None or manifest.commit == self._commit:
            return
        merged = merged and self._error is None and self._commit is not None
        done, error = self._publisher.attempt(manifest, merged=merged)
        for item in done:
            self._add(asdict(item))
        if error is None:
            self._commit = self._summary.published_commit = manifest.commit
        elif self._error is None:
            _LOGGER.warning("%s", error)
        self._error = error
        self._tried = time.monotonic()

    def finish(self, manifest: Manifest | None) -> None:
        """Publish what is left. Raises PublishError, with the summary of the run."""
        self.publish(manifest)
        if self._error is not None:
            self._error.summary = self._summary
            raise self._error

    def _add(self, item: dict[str, object]) -> None:
        """Add what was changed in a table to the summary."""
        for table in self._summary.published:
            if table["table"] == item["table"]:
                table["added"] += item["added"]
                table["removed"] += item["removed"]
                table["note"] = "; ".join(filter(None, [table["note"], str(item["note"])]))
                table |= {"version": item["version"], "commit": item["commit"]}
                return
        self._summary.published.append(item)
