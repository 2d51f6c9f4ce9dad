"""Local and remote files behind one interface: list, read, write, sync, rename."""

from streamrnn.storage.files import Files, Output, telling
from streamrnn.storage.local import LocalFiles
from streamrnn.storage.opening import open_files
from streamrnn.storage.remote import RemoteFiles

__all__ = ["Files", "LocalFiles", "Output", "RemoteFiles", "open_files", "telling"]
