"""Connect to an object store: bounded waits, and no credentials in messages."""

import pyarrow as pa
from pyarrow import fs as arrow_fs

from streamrnn.base.display import safe_text

CONNECT_SECONDS = 5.0
REQUEST_SECONDS = 10.0
"""How long a server may send nothing. Some copy a large object without sending a byte."""
ATTEMPTS = 5
"""Attempts of a request, with random pauses of up to 1, 2, 4 and 8 s between them."""


def connect(uri: str) -> tuple[arrow_fs.FileSystem, str]:
    """Return the filesystem of a URI that pyarrow.fs supports, and the path in it.

    On S3 a request without an answer fails after `ATTEMPTS` times `REQUEST_SECONDS`; Arrow would
    retry for minutes. Raises OSError or pa.ArrowException.
    """
    try:
        fs, path = arrow_fs.FileSystem.from_uri(uri)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise type(error)(safe_text(error, uri)) from None
    return (_bounded(fs) if isinstance(fs, arrow_fs.S3FileSystem) else fs), path


def s3_options(fs: arrow_fs.S3FileSystem) -> dict[str, str]:
    """Return how a filesystem connects, under the names of `object_store` (Rust).

    Credentials of the environment are left to the reader's own.
    """
    _, (found,) = fs.__reduce__()
    names = {"access_key": "access_key_id", "secret_key": "secret_access_key"}
    names |= {"session_token": "session_token", "region": "region"}
    options = {f"aws_{new}": found[old] for old, new in names.items() if found[old]}
    if found["endpoint_override"]:
        endpoint = found["endpoint_override"].removeprefix(f"{found['scheme']}://")
        options["aws_endpoint_url"] = f"{found['scheme']}://{endpoint}"
        options["aws_allow_http"] = str(found["scheme"] == "http").lower()
    if found["anonymous"]:
        options["aws_skip_signature"] = "true"
    return options


def _bounded(fs: arrow_fs.S3FileSystem) -> arrow_fs.S3FileSystem:
    """Return the same S3 filesystem with bounded waits, for which URIs have no options.

    One with options that pyarrow cannot pass on is returned as it is.
    """
    _, (found,) = fs.__reduce__()
    options = {name: value for name, value in found.items() if value not in ("", None)}
    del options["proxy_options"]
    if not arrow_fs.S3FileSystem(**options).equals(fs):
        return fs
    retries = arrow_fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS)
    options |= {"connect_timeout": CONNECT_SECONDS, "request_timeout": REQUEST_SECONDS}
    return arrow_fs.S3FileSystem(**options, retry_strategy=retries)
