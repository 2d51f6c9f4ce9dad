"""Local and remote files behind one interface: list, read, write, sync, rename."""

from streamrnn.base.storage.files import Files, Output, advice_on, canonical, sink_errors
from streamrnn.base.storage.local import LocalFiles, LocalOutput
from streamrnn.base.storage.store import (
    AnyPath,
    Entry,
    Store,
    fetch,
    open_files,
    open_store,
    real_path,
    replace_file,
)
from streamrnn.base.storage.threads import side_by_side
