"""Helpers for the display of objects: a line in a console, a small table in a notebook.

Text in, text out. No file is read, and no credentials are shown.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import SequenceMatcher, get_close_matches
from html import escape
from types import FunctionType, MappingProxyType
from typing import Any
from urllib.parse import unquote

_SHOWN = 6
_PRIVATE = re.compile(rf"{__package__.partition('.')[0]}\.(nn|stream|jobs|plugins)\.")
# The options of pyarrow's URIs that hold no secret.
_OPTIONS = {
    *("region", "scheme", "endpoint_override", "anonymous", "role_arn", "session_name"),
    *("allow_bucket_creation", "allow_bucket_deletion", "allow_delayed_open", "smart_defaults"),
    *("check_directory_existence_before_creation", "tls_ca_file_path", "tls_verify_certificates"),
    *("retry_limit_seconds", "project_id", "enable_tls", "tenant_id", "client_id"),
    *("credential_kind", "background_writes", "blob_storage_authority", "blob_storage_scheme"),
    *("dfs_storage_authority", "dfs_storage_scheme", "default_bucket_location"),
}
_BUCKETS = "s3[an]?|gs|gcs"
# It also matches misspelled URIs: after white space or a quote, with one slash or none, or without
# a colon.
_URI = re.compile(
    rf"(?P<before>[\s'\"<]*)(?P<scheme>(?P<bucket>{_BUCKETS})|(?:abfs|wasb|az|http|ftp)s?|adl|hdfs"
    r"|viewfs|sftp|(?P<other>[a-z][a-z0-9+.-]*)(?=://))(?P<slashes>:/*|//)",
    re.IGNORECASE,
)
# What may be a user and a password, in any text.
_BEFORE_AT = re.compile("(?::|//).*@", re.DOTALL)
_UNKNOWN = (
    "expected a URI such as s3://user:password@host/path; a path on a disk that has '@' after ':' "
    "or '//' must begin with './'"
)
# A value that does not contain another option.
_PLAIN = re.compile(r"[\w./:,+~ -]*")
# A URI in a text: it ends at white space, or before the punctuation of a sentence.
_IN_TEXT = re.compile(r"[a-z][a-z0-9+.-]*://\S*?(?=['\"]?[:,;.)]*(?:\s|$))", re.IGNORECASE)
# The characters of RFC 3986; "%" begins an encoded one.
_USER = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:-]|%[0-9A-Fa-f]{2})*")


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
    """Join names with commas; of more than six, show the first five and the last.

    >>> listed(["a", "b"])
    'a, b'
    >>> listed("abcdefgh")
    'a, b, c, d, e, …, h'
    """
    items = list(names)
    return ", ".join(items if len(items) <= _SHOWN else [*items[: _SHOWN - 1], "…", items[-1]])


def as_text(value: object) -> str:
    r"""Return a value as text. Bytes are read as UTF-8, like keys in commands and requests.

    >>> as_text(b"\xc3\xa9\xff"), as_text(1.5)
    ('é\\xff', '1.5')
    """
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def closest(word: str, names: Iterable[str]) -> str | None:
    """Return the name that a word may be a slip or the beginning of, regardless of case, or None.

    >>> closest("Lstm", ["GRU", "LSTM"]), closest("Dot", ["Dropout", "LSTM"])
    ('LSTM', None)
    """
    by_plain = {name.lower().replace("_", ""): name for name in names}
    word = word.lower().replace("_", "")
    matches = get_close_matches(word, by_plain)
    return next((by_plain[name] for name in matches if _is_slip(word, name)), None)


def _is_slip(word: str, name: str) -> bool:
    codes = SequenceMatcher(None, word, name).get_opcodes()
    edits = sum(max(b - a, d - c) for kind, a, b, c, d in codes if kind != "equal")
    few = edits <= max(1, min(len(word) // 4, 3)) or sorted(name) == sorted(word)
    kind, _, alike, _, end = codes[0]
    return few or (kind == "equal" and alike == end and alike >= 0.75 * len(word))


def not_one_of(what: str, choices: Iterable[str], word: object, verb: str = "supported") -> str:
    """Return the message that a name is unknown, with the closest name and all names, sorted.

    >>> not_one_of("loss 'hubr'", ["mse", "huber"], "hubr")
    "loss 'hubr' is not supported; did you mean 'huber'? Supported: huber, mse"
    """
    names = sorted(choices)
    near = closest(word, names) if isinstance(word, str) else None
    hint = f"; did you mean {near!r}? {verb.capitalize()}" if near else f"; {verb}"
    return f"{what} is not {verb}{hint}: {', '.join(names)}"


def first_of(names: Sequence[str], number: int = 3) -> str:
    """Join the first names with commas, and count the others.

    >>> first_of(["a", "b", "c"]), first_of(["a", "b", "c", "d"])
    ('a, b, c', 'a, b, c and 1 more')
    """
    more = len(names) - number
    return ", ".join(names[:number]) + (f" and {more:,} more" if more > 0 else "")


def location(path: str) -> str:
    """Return a path unchanged, and a URI without secrets, however it is misspelled.

    What remains of a URI is its scheme, host and path, and the options from an allow-list that have
    plain values, sorted; if the scheme is unknown, only what follows the last "@".

    >>> location("out/weather"), location("s3://key:secret@logs/2013?access_token=x#part")
    ('out/weather', 's3://logs/2013')
    >>> location("s3://logs/2013?scheme=http&region=eu-west-3&secret_key=x")
    's3://logs/2013?region=eu-west-3&scheme=http'
    >>> location("s3:/key:sec/r@et@logs/x")
    's3:/logs/x'
    """
    start = _URI.match(path)
    if start is None and not _may_have_user(path):
        return path
    head, rest = ("", path) if start is None else (start[0].lstrip(), path[start.end() :])
    # The last "@" ends the user and password, which may contain another "@" (it should be encoded).
    if start is None or _has_user(start, rest):
        at = next((sign for sign in ("@", "%40") if sign in rest), None)
        rest = rest.partition("/")[2] if at is None else rest.rpartition(at)[2]
    base, _, query = rest.partition("#")[0].partition("?")
    options = sorted(
        option
        for option in query.split("&")
        for name, _, value in [option.partition("=")]
        if name in _OPTIONS and _PLAIN.fullmatch(unquote(value))
    )
    return f"{head}{base}" + (f"?{'&'.join(options)}" if options else "")


def uri_fault(path: str) -> str | None:
    """Return how to fix a malformed URI; None for any other path.

    Unfixed, such a URI would be read as a path on a disk, or a part of the password as the host.

    >>> uri_fault("s3:/logs/x")
    'expected two slashes in a URI: s3://…'
    """
    start = _URI.match(path)
    if start is None:
        return _UNKNOWN if _may_have_user(path) else None
    if start["before"]:
        return "expected a URI to begin with its scheme; remove the white space or quotes before it"
    if start["slashes"] != "://" and (start["bucket"] or start["slashes"][:3] != "://"):
        return f"expected two slashes in a URI: {start['scheme']}://…"
    rest = path[start.end() :]
    if not _has_user(start, rest):
        invalid = {"[", "]"} & {*re.split(r"[/?#]", rest, maxsplit=1)[0]}
        return "expected scheme://host/path, in which a host has no brackets" if invalid else None
    user, at, after = rest.partition("@")
    if at and user != user.strip():
        which = "begins" if user[0].isspace() else "ends"
        return (
            f"the user or password of the URI {which} with white space, as in a file that echo "
            "wrote (printf '%s' writes none); remove it"
        )
    if not at or not _USER.fullmatch(user) or "@" in after:
        return (
            "expected scheme://user:password@host/path, in which a reserved character of the user, "
            "the password or the path is percent-encoded: '/' is %2F, '@' is %40, '?' is %3F, "
            "'#' is %23, a blank is %20"
        )
    return None


def without_credentials(text: str) -> str:
    """Return a text with its URIs shown as by `location`: a second safeguard for all messages.

    Well-formed URIs are found exactly; malformed ones are refused before they get into a text.

    >>> without_credentials("'s3://key:secret@logs/x?region=a&secret_key=b': no such bucket")
    "'s3://logs/x?region=a': no such bucket"
    """
    return _IN_TEXT.sub(lambda match: location(match[0]), text) if "://" in text else text


def safe_text(error: object, *uris: str, secrets: Iterable[str] = ()) -> str:
    """Return the text of a library's error or warning, or another text if it may hold a secret.

    A text may hold a secret if it contains any part of `secrets`, or of what `location` leaves out
    of `uris`.

    >>> safe_text(OSError("bucket 'logs': AWS error"), "s3://KEY:SECRET@logs/x")
    "bucket 'logs': AWS error"
    >>> safe_text(OSError("no such option: 'sig'"), "s3://logs/x?sig=SECRET")
    "the library's text is not shown, as it may contain a secret"
    """
    hidden = {part for secret in secrets for part in _parts(secret)}
    for uri in uris:
        hidden |= {*_parts(uri), *_parts(unquote(uri))} - {*_parts(location(uri))}
    if any(part in str(error) for part in hidden):
        return "the library's text is not shown, as it may contain a secret"
    return str(error)


def _parts(uri: str) -> list[str]:
    return [part for part in re.split(r"[/:@?&=#\s]+", uri) if part]


def _may_have_user(path: str) -> bool:
    """Return whether a path without a known scheme, and not on a disk, may contain a user."""
    is_local = path.startswith(("/", ".")) and not path.startswith("//") and "://" not in path
    return bool(_BEFORE_AT.search(unquote(path))) and not (is_local or os.path.exists(path))


def _has_user(start: re.Match[str], rest: str) -> bool:
    """Return whether the part after the scheme may begin with a user and a password."""
    if start["scheme"].lower() == "file" and start["slashes"] != "://":
        return False
    if start["slashes"][:3] != "://" and _BEFORE_AT.search(unquote(rest)):
        return True
    authority = unquote(re.split(r"[/?#]", rest, maxsplit=1)[0])
    _, colon, port = authority.partition(":")
    is_port = not start["bucket"] and "@" not in rest and (port.isdecimal() or not port)
    return "@" in authority or (bool(colon) and not is_port)


def without_options(path: str) -> str:
    """Return a URI without its options, a path unchanged.

    >>> without_options("s3://logs/2013.parquet?region=eu-west-3"), without_options("what?")
    ('s3://logs/2013.parquet', 'what?')
    """
    return path.partition("?")[0] if "://" in path else path


def html_table(title: str, rows: Iterable[Sequence[object]], header: Sequence[str] = ()) -> str:
    """Return an HTML table with a caption; the first cell of a row is its heading. Text is escaped.

    >>> html_table("A & B", [("rows", 3)])
    '<table><caption>A &amp; B</caption><tbody><tr><th>rows</th><td>3</td></tr></tbody></table>'
    """
    head = "".join(f"<th>{escape(text)}</th>" for text in header)
    body = ""
    for row in rows:
        first, *others = (escape(str(value)) for value in row)
        cells = "".join(f"<td>{text}</td>" for text in others)
        body += f"<tr><th>{first}</th>{cells}</tr>"
    return (
        f"<table><caption>{escape(title)}</caption>"
        + (f"<thead><tr>{head}</tr></thead>" if head else "")
        + f"<tbody>{body}</tbody></table>"
    )


def show_in(
    module: str,
    names: dict[str, Any],
    later: Mapping[str, Callable[[str], Any]] = MappingProxyType({}),
) -> None:
    """Let `dir`, `help` and `repr` show a public module of streamrnn as the home of its names.

    `names` is the module's own namespace. Names that are loaded on first use come from its
    `__getattr__`, or, if it has none, from the function to which `later` maps the name. Pickles
    look the names up in the public module. `inspect.getsource` fails for a class shown in this way.
    """

    def shown(value: Any) -> Any:
        if isinstance(value, type | FunctionType) and _PRIVATE.match(value.__module__):
            value.__module__ = module
        return value

    def load(name: str) -> Any:
        if name not in later:
            # Without `name=`, so that Python adds a similar name, from `dir`.
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return later[name](name)

    for value in names.values():
        shown(value)
    inner = names.get("__getattr__", load)
    names["__getattr__"] = lambda name: shown(inner(name))
    names.setdefault("__dir__", lambda: names["__all__"])
