"""Score one day of a log per task of an Airflow DAG: `log/date=2013-01-02/*.parquet`.

    python pipelines/etl/airflow_days.py PIPELINE DAY

does the work of one task without Airflow. [source] path of the pipeline file is the folder of the
log, and [source] time is set. Rows, state and the list of used files are one commit. So a task that
is retried resumes where it was killed, and one that is run again finds nothing new.
"""

import json
import os
import sys
from importlib.util import find_spec
from typing import Any

from streamrnn import Pipeline
from streamrnn.errors import StreamRNNError


def files_of_day(log: str, day: str) -> str:
    """Return a glob of the files of a day; with it the column of the partition can be used."""
    folder, mark, query = log.partition("?")
    return f"{folder.rstrip('/')}/*={day}/**{mark}{query}"


def score_day(pipeline: str, day: str) -> dict[str, Any]:
    """Score the files of a day that are new; return the summary of the run, for XCom.

    Raises LateRowError if a later day was scored before, CheckpointError if an earlier one was
    scored in part, MissingFileError if the day has no file.
    """
    config = Pipeline.from_toml(pipeline).config
    config.require_run()
    files = files_of_day(str(config.source.path), day)
    return Pipeline.from_toml(pipeline, [f"source.path={files}"]).run().as_dict()


def is_final(error: StreamRNNError) -> bool:
    """Return whether a retry would fail, too, as for invalid data or an invalid pipeline file."""
    return error.exit_code in (65, 78)


if find_spec("airflow"):  # not run by the tests
    from datetime import datetime

    from airflow.sdk import dag, task
    from airflow.sdk.exceptions import AirflowFailException
    from airflow.timetables.interval import CronDataIntervalTimetable

    @task
    def score(pipeline: str, day: str) -> dict[str, Any]:
        """Score a day; fail without retries where they cannot help."""
        try:
            return score_day(pipeline, day)
        except StreamRNNError as error:
            if is_final(error):
                raise AirflowFailException(str(error)) from None
            raise

    @dag(
        # `ds` is then the day that has ended; with a cron string, it is the one that begins.
        schedule=CronDataIntervalTimetable("15 2 * * *", timezone="UTC"),
        start_date=datetime(2013, 1, 2),
        catchup=True,
        max_active_runs=1,  # in the order of days, each after the one before has succeeded
        default_args={"depends_on_past": True, "retries": 3},
    )
    def weather() -> None:
        score(os.environ["PIPELINE"], "{{ ds }}")

    weather()


if __name__ == "__main__":
    try:
        print(json.dumps(score_day(*sys.argv[1:])))
    except StreamRNNError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
