"""Paths that follow from other paths of a pipeline file."""

from urllib.parse import urlsplit, urlunsplit


def rejects_beside(path: str) -> str:
    """Where the rejects of an output go when nothing is said: `path` + ".rejects"."""
    parts = urlsplit(path)
    if "://" not in path:
        return path.rstrip("/") + ".rejects"
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + ".rejects"))
