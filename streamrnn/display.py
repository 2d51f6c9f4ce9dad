"""Helpers for the display of objects: a line in a console, a small table in a notebook.

Text in, text out. Nothing is read, and no credentials are shown.
"""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from html import escape

__all__ = [
    "closest",
    "count",
    "first_of",
    "html_table",
    "listed",
    "location",
]

_SHOWN = 6
# The options of pyarrow's URIs that hold no secret.
_OPTIONS = {
    *("region", "scheme", "endpoint_override", "anonymous", "role_arn", "session_name"),
    *("allow_bucket_creation", "allow_bucket_deletion", "allow_delayed_open", "smart_defaults"),
    *("check_directory_existence_before_creation", "tls_ca_file_path", "tls_verify_certificates"),
    *("retry_limit_seconds", "project_id", "enable_tls", "tenant_id", "client_id"),
    *("credential_kind", "background_writes", "blob_storage_authority", "blob_storage_scheme"),
    *("dfs_storage_authority", "dfs_storage_scheme", "default_bucket_location"),
}
# After "://", or after "s3:/", which pathlib makes of it: a user, and a password that may hold
# characters that should have been encoded, even "@": the last one that a bucket or host may follow
# ends it. What follows the colon of another scheme may be a port.
_NAME = r"(?=[A-Za-z0-9][\w.-]{2,62}(?:[/?#\s'\",;:)]|$))"
_KEY = r"[^\s/?#@:'\"]*:"
_NO_PORT = r"(?!\d*(?:[\s/?#'\"]|$))"
_WORD, _LINE = (rf"(?:(?!://)[^{end}'\"])*@" for end in (r"\s", r"\n"))
_AUTHORITY = r"[^\s/?#'\"]*@"
_USER = re.compile(
    rf"(\b(?:s3|gs|gcs):/+)(?:{_KEY}{_WORD}{_NAME}|{_AUTHORITY}|{_KEY}{_LINE}{_NAME}"
    rf"|{_KEY}{_WORD}|{_KEY}(?:(?!://)[^@\n])*@)"
    rf"|(\b(?:abfss?|wasbs?|hdfs|https?):/(?!/)|://)(?:{_KEY}{_NO_PORT}{_WORD}{_NAME}"
    rf"|{_AUTHORITY}|{_KEY}{_NO_PORT}(?:(?!://)[^@'\"\n])*@)"
)
_USER_OF_ONE = re.compile(
    r"^(s3|gs|gcs)://(?:[^/?#]*@|[^/?#@:]*:.*@)"
    r"|://(?:[^/?#]*@|[^/?#@:]*:(?!\d*(?:[/?#]|$)).*@)"
)
_SECRET = re.compile(
    r"([?&])\w*(?:key|secret|token|password|signature|credential)\w*=[^\s&'\",;)]*", re.IGNORECASE
)


def count(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> count(1, "row"), count(26115, "row")
    ('1 row', '26,115 rows')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def short_model(fingerprint: str) -> str:
    """Return the digits of a model's fingerprint that people read, as in `model_column`.

    >>> short_model("0123456789abcdef" * 4)
    '0123456789abcdef'
    """
    return fingerprint[:16]


def listed(names: Iterable[str]) -> str:
    """Join names with commas; of many, the first ones and the last.

    >>> listed(["a", "b"])
    'a, b'
    >>> listed("abcdefgh")
    'a, b, c, d, e, …, h'
    """
    items = list(names)
    return ", ".join(items if len(items) <= _SHOWN else [*items[: _SHOWN - 1], "…", items[-1]])


def closest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that is most similar, whatever its case; None if none is.

    >>> closest("Lstm", ["GRU", "LSTM"]), closest("Dense", ["GRU", "LSTM"])
    ('LSTM', None)
    """
    by_lower = {name.lower(): name for name in known}
    found = get_close_matches(word.lower(), by_lower, n=1)
    return by_lower[found[0]] if found else None


def first_of(names: Sequence[str], number: int = 3) -> str:
    """Join the first names with commas, and count the others.

    >>> first_of(["a", "b", "c"]), first_of(["a", "b", "c", "d"])
    ('a, b, c', 'a, b, c and 1 more')
    """
    more = len(names) - number
    return ", ".join(names[:number]) + (f" and {more:,} more" if more > 0 else "")


def location(path: str) -> str:
    """Return a path unchanged, a URI without credentials; its other options are sorted.

    >>> location("out/weather"), location("s3://key:secret@logs/2013?access_token=x#part")
    ('out/weather', 's3://logs/2013')
    >>> location("s3://logs/2013?scheme=http&region=eu-west-3&secret_key=x")
    's3://logs/2013?region=eu-west-3&scheme=http'
    """
    if "://" not in path:
        return path
    base, _, query = _USER_OF_ONE.sub(r"\1://", path).partition("#")[0].partition("?")
    options = sorted(
        option
        for option in query.split("&")
        if option.partition("=")[0] in _OPTIONS and "@" not in option
    )
    return f"{base}?{'&'.join(options)}" if options else base


def without_options(path: str) -> str:
    """Return a URI without its options, a path unchanged.

    >>> without_options("s3://logs/2013.parquet?region=eu-west-3"), without_options("what?")
    ('s3://logs/2013.parquet', 'what?')
    """
    return path.partition("?")[0] if "://" in path else path


def without_credentials(text: str) -> str:
    """Cut users, passwords and secret options out of all URIs in a text.

    >>> without_credentials("'s3://key:secret@logs/x?region=a&secret_key=b': no such bucket")
    "'s3://logs/x?region=a&': no such bucket"
    >>> without_credentials("s3:/key:sec/r@et@logs/x")
    's3:/logs/x'
    """
    return _SECRET.sub(r"\1", _USER.sub(r"\1\2", text)) if ":/" in text else text


def html_table(title: str, rows: Iterable[Sequence[object]], header: Sequence[str] = ()) -> str:
    """Return an HTML table with a caption; the first cell of a row is its heading. Text is escaped.

    >>> html_table("A & B", [("rows", 3)])
    '<table><caption>A &amp; B</caption><tbody><tr><th>rows</th><td>3</td></tr></tbody></table>'
    """
    head = "".join(f"<th>{escape(text)}</th>" for text in header)
    body = "".join(f"<tr>{_cells(row)}</tr>" for row in rows)
    return (
        f"<table><caption>{escape(title)}</caption>"
        + (f"<thead><tr>{head}</tr></thead>" if head else "")
        + f"<tbody>{body}</tbody></table>"
    )


def _cells(row: Sequence[object]) -> str:
    first, *others = (escape(str(value)) for value in row)
    return f"<th>{first}</th>" + "".join(f"<td>{text}</td>" for text in others)
