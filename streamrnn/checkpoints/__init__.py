"""Checkpoints: rows, position and state of a run are committed together, or not at all.

The loop of a run, whole::

    with OutputFolder.open("out/weather", keep=1) as folder:
        folder.begin(schema, model=model.fingerprint(), config=config.canonical())
        source = FileSource(list_files(path), …)
        plan = folder.check_sources(source.files, source)  # .files to read, .position, .vanished
        table = folder.load_state()                    # pa.Table, or None at the first start
        source.files = list(plan.files)
        for batch in source.batches(plan.position, plan.before):
            folder.write(rows)                       # RecordBatch in the order of the input
            folder.reject(bad_rows)                  # RecordBatch; kept beside, committed alike
            if time_to_commit:
                folder.commit(
                    sources=files_begun,             # sources.SourceFile, since the last commit
                    readings=readings,               # name of the file -> batch.reading
                    position=batch.position,
                    state=Snapshot.of(state_table),  # then state_table.mark_clean()
                    counters={"skipped": 3},         # any JSON; comes back in folder.manifest
                )
        folder.commit(..., complete=True)            # the last one: the input has ended

A commit, in this order (each step is safe to be the last one ever done):

1. an attempt closes and syncs its parts, of rows and of rejects, in ``_streamrnn/staging``
2. it writes and syncs a version of the state of its shard
3. the driver gives the parts their names, and writes the manifest beside, syncs it and renames it
   into place: from here the commit counts
4. the parts are renamed out of staging, where readers find them
5. versions of the state that no kept commit names are removed

Steps 1 and 2 are `Attempt.finish`; what it returns, `Facts`, is plain values. The run above has one
shard and makes its attempts itself. A driver of several shards has them made elsewhere, of nothing
but paths and numbers (`Attempt.at`), and commits all facts at once: ``folder.commit(facts, …)``.

Names of an attempt's files carry a token drawn at random, and files are created only where there
is none. So of two attempts at one shard of one commit (a worker that seemed dead, a dead run's
process that comes back) neither opens a file of the other, or one that a manifest names. A part
keeps its name in staging for life: that of ``part-00000.parquet`` was
``<commit>-<shard>-<token>.parquet.tmp``.

Parts have numbers of five digits until one would be 100,000. That commit gives all parts eight:
before step 3 they go back to staging, the last one first, and step 4 publishes them under their
new names. (A reader then finds fewer rows for a while, as during `compact`.)

`OutputFolder.open` finishes 4 and 5 for a run that died, and removes what the manifest does not
name. On object stores a rename is a copy on the server and a delete, the manifest one put.
"""

from streamrnn.checkpoints.attempt import Attempt, Facts
from streamrnn.checkpoints.folder import OutputFolder
from streamrnn.checkpoints.manifest import Manifest, RetainedCommit, Shard, UsedFile
from streamrnn.checkpoints.nesting import refuse_inside_output, refuse_nested_output
from streamrnn.checkpoints.reading import has_manifest, load_state, read_manifest
from streamrnn.checkpoints.resume import check_same_pipeline
from streamrnn.checkpoints.used import SourcePlan, plan_sources
from streamrnn.checkpoints.versions import Snapshot, StateDelta

__all__ = [
    "Attempt",
    "Facts",
    "Manifest",
    "OutputFolder",
    "RetainedCommit",
    "Shard",
    "Snapshot",
    "SourcePlan",
    "StateDelta",
    "UsedFile",
    "check_same_pipeline",
    "has_manifest",
    "load_state",
    "plan_sources",
    "read_manifest",
    "refuse_inside_output",
    "refuse_nested_output",
]
