"""Checkpoints: rows, position and state of a run are committed together or not at all.

The loop of a run::

    with OutputFolder.open("out/weather", keep=1) as folder:
        folder.begin(schema, model=model.fingerprint(), config=config.canonical())
        plan = folder.check_sources(source.files, source)  # .files to read, .position, .before
        table = folder.load_state()                  # pa.Table, or None before the first commit
        source.files = list(plan.files)
        for batch in source.batches(plan.position, plan.before):
            folder.write(rows)                       # RecordBatch in the order of the input
            folder.reject(bad_rows)                  # RecordBatch; committed with the rows
            if time_to_commit:                       # then state_table.mark_clean()
                now = {"sources": files_begun, "readings": readings, "position": batch.position}
                folder.commit(**now, state=Snapshot.of(state_table), counters={"skipped": 3})
        folder.commit(..., complete=True)            # the last one: end of the input

The steps of a commit, in this order (it is safe to stop after any of them):

1. an attempt closes and syncs its parts, of rows, rejects and alerts, in ``_streamrnn/staging``
2. it writes and syncs a version of the state of its shard
3. the driver assigns names to the parts, writes and syncs new segments of the manifest's long lists
   (`segments`), writes the manifest to a temporary file, syncs it and renames it into place: from
   here on the commit is valid
4. the parts are renamed out of staging, so that readers find them
5. versions of the state that neither this commit nor a retained one needs, and segments that the
   manifest does not name, are removed

Steps 1 and 2 are `Attempt.finish`, which returns plain values (`Facts`). The run above has one
shard and makes its own attempts. A driver of several shards has workers make them, and commits all
facts at once: ``folder.commit(facts, …)``.

The file names of an attempt contain a random token, and existing files are never opened for
writing. So attempts at one shard of one commit (such as by a worker presumed dead) never write to
each other's files, nor to a file that a manifest names. The manifest keeps the name that a part had
in staging: ``part-00000.parquet`` was ``_<commit>-<shard>-<token>.parquet.tmp``.

Part numbers have five digits. From the commit of part 100,000 on, all part numbers have eight:
before step 3 of that commit writes the manifest, the parts are moved back to staging, the last one
first, and step 4 publishes them under their new names. (Readers find fewer rows meanwhile, as
during `compact`.)

The manifest has layout number 1. It is JSON; its first field is the sha256 of all bytes after that
field. A field that has its default is not written. Each manifest has ``layout``,
``output`` (a random name of the folder), ``commit``, ``time``, ``model`` (its fingerprint),
``config``, ``schema`` (of the rows) and ``home`` (where the folder is). Where they apply, it has:

- ``outputs``: "rows", "rejects", "alerts" -> their ``parts`` and, unless it is the default, their
  ``path``. Each part has its name, name in staging, rows, bytes, sha256 and commit and, unless it
  is of rejects or alerts, the ``model`` that computed its rows
- ``sources``: the used files, in the order in which they were read; ``table``: the id of the table
  that they belong to; ``position``: the first unread row of the file that was read partly
- ``positions``: the position of the last call of a session (or of `process`, if the state was
  imported from its checkpoint), as pairs of a partition (null: there is none) and the position in
  it. Both are integers, texts, or {"bytes": base64}; a position may also be a list of these
- ``shards``: the rows and files of each shard of the state; ``counters``: the run's counters, and
  totals over all runs of the rows that come from no file: ``piped`` ones, and ``live`` ones of
  sessions
- ``complete``: true if the input had ended; ``end_of_run``: false if the run continued after this
  commit
- ``kept``: the commits that `rewind` can go back to, with the number of used files, the rows of
  each output, and the other fields that differ from commit to commit
- ``segments``: "sources" or the name of an output -> the files with the first entries of the list

A replay (a new model that reads earlier rows) that has not ended is an output without rows in the
folder ``_streamrnn/_replay``. The next commit of a run removes it.

Another layout is refused. From the release on, a new layout comes with a reader for each earlier
one. By default, `OutputFolder.open` finishes steps 4 and 5 of a run that died, and removes parts,
and files of ``_streamrnn`` and its ``staging``, that the manifest does not name; other files stay.
On object stores, a rename is a copy and a delete on the server, and the manifest is written by one
put.
"""

from streamrnn.stream.checkpoints.attempt import Attempt, Facts
from streamrnn.stream.checkpoints.filters import row_filters
from streamrnn.stream.checkpoints.folder import OutputFolder
from streamrnn.stream.checkpoints.lock import Lock
from streamrnn.stream.checkpoints.manifest import (
    Manifest,
    RetainedCommit,
    SeenFiles,
    Shard,
    StateFile,
    UsedFile,
    seen_files,
    with_seen,
    with_seen_files,
)
from streamrnn.stream.checkpoints.partitioning import partitioning_in, partitioning_of
from streamrnn.stream.checkpoints.reading import (
    has_manifest,
    load_shard,
    load_state,
    read_manifest,
    read_token,
)
from streamrnn.stream.checkpoints.starting import (
    check_same_pipeline,
    check_schema,
    refuse_inside_output,
    refuse_lost_files,
    refuse_lost_pipe,
    refuse_nested_output,
    refuse_no_directory,
    rows_of_no_file,
)
from streamrnn.stream.checkpoints.used import (
    Select,
    SourcePlan,
    changed_files,
    current_names,
    plan_sources,
    used_elsewhere,
)
from streamrnn.stream.checkpoints.versions import Snapshot
