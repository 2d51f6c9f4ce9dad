"""Paths derived from other paths of a pipeline file."""

from urllib.parse import urlsplit, urlunsplit


def rejects_beside(path: str) -> str:
    """Return the default directory of an output's rejects: `path` + ".rejects"."""
    parts = urlsplit(path)
    if "://" not in path:
        return path.rstrip("/") + ".rejects"
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + ".rejects"))
