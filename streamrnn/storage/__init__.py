"""Local and remote files behind one interface: list, read, write, sync, rename."""

from streamrnn.storage.advice import advice_on
from streamrnn.storage.canonical import canonical
from streamrnn.storage.fetching import fetch
from streamrnn.storage.files import Files, Output, sink_errors
from streamrnn.storage.local import LocalFiles
from streamrnn.storage.opening import open_files
from streamrnn.storage.remote import RemoteFiles
from streamrnn.storage.store import Store, open_store, real_path, replace_file
from streamrnn.storage.walking import Entry

__all__ = [
    "Entry",
    "Files",
    "LocalFiles",
    "Output",
    "RemoteFiles",
    "Store",
    "advice_on",
    "canonical",
    "fetch",
    "open_files",
    "open_store",
    "real_path",
    "replace_file",
    "sink_errors",
]
