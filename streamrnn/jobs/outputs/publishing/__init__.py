"""Tables of Delta and Iceberg that index the parts of an output: nothing is copied.

The folder and its manifest stay the truth. After a commit each table is made equal to the parts
(`reconcile`): what it lacks is added, what it has beyond them is removed, in one version of the
table. What is not done, because a process died or a catalog did not answer, is done the next time.
A format is a plug-in with a `PublishedTable`: its entry point is `publish.NAME`.
"""

from streamrnn.jobs.outputs.publishing.publisher import Published, Publisher, publish

__all__ = ["Published", "Publisher", "publish"]
