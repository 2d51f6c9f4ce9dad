"""Record batches with their positions, and the contract that turns their rows into arrays."""

from streamrnn.stream.sources.after import after_partition, after_path, after_time
from streamrnn.stream.sources.base import Source, SourceBatch
from streamrnn.stream.sources.casts import (
    cast_columns,
    cast_what_fits,
    decoded,
    fitted,
    is_real,
    may_cast,
    named_values,
    shown,
)
from streamrnn.stream.sources.columns import Faults
from streamrnn.stream.sources.content import NOTHING, Content, Reading, hashes_of, sum_of
from streamrnn.stream.sources.contract import Contract, Feature, Rows
from streamrnn.stream.sources.files import (
    SourceFile,
    canonical_name,
    etag,
    list_files,
    list_of_format,
)
from streamrnn.stream.sources.formats import (
    OTHER_DELIMITERS,
    SOURCE_FORMATS,
    ColumnStatistics,
    suffixes_of,
)
from streamrnn.stream.sources.position import Origin, Position
from streamrnn.stream.sources.reading import DAMAGE, FileSource, StreamSource
from streamrnn.stream.sources.schema import (
    TargetColumns,
    common_schema,
    in_earlier_types,
    joined_renames,
    missing_column,
    new_names,
    select,
    used_schema,
    with_new_names,
    with_values,
)
from streamrnn.stream.sources.tables import Listing, Table, open_table
from streamrnn.stream.sources.times import (
    FileTimes,
    check_zone,
    last_with,
    note_on_offset,
    parse_time,
    shown_time,
    steps_back,
    ticks,
    time_of,
    unix_seconds,
    with_clock,
)
from streamrnn.stream.sources.vocabulary import (
    UNKNOWN_IN,
    LookedUp,
    add_looked_up,
    load_vocabulary,
    refuse_all_unknown,
)
