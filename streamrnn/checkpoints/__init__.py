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

1. the part is closed and synced in ``_streamrnn/staging``
2. a version of the state is written and synced
3. the manifest is written beside, synced and renamed into place: from here the commit counts
4. the parts are renamed out of staging, where readers find them
5. versions of the state that no kept commit names are removed

`OutputFolder.open` finishes 4 and 5 for a run that died, and removes what the manifest does not
name. On object stores a rename is a copy on the server and a delete, the manifest one put.
"""

from streamrnn.checkpoints.attempt import Attempt, Facts
from streamrnn.checkpoints.folder import OutputFolder
from streamrnn.checkpoints.manifest import Kept, Manifest, Shard, UsedFile
from streamrnn.checkpoints.nesting import refuse_inside_output, refuse_nested_output
from streamrnn.checkpoints.reading import has_manifest, load_state, read_manifest
from streamrnn.checkpoints.resume import check_same
from streamrnn.checkpoints.used import SourcePlan, plan_sources
from streamrnn.checkpoints.versions import Snapshot, Taken

__all__ = [
    "Attempt",
    "Facts",
    "Kept",
    "Manifest",
    "OutputFolder",
    "Shard",
    "Snapshot",
    "SourcePlan",
    "Taken",
    "UsedFile",
    "check_same",
    "has_manifest",
    "load_state",
    "plan_sources",
    "read_manifest",
    "refuse_inside_output",
    "refuse_nested_output",
]
