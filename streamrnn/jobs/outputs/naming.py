"""The used files that a name means: a path or the end of one, or a partition."""

from collections.abc import Sequence

from streamrnn.base.display import count, first_of, location
from streamrnn.errors import ConfigError
from streamrnn.stream.checkpoints import Manifest


def used_files(manifest: Manifest, name: str, output: str) -> list[str]:
    """Return the used files that `name` means: one, or all of one partition; none if unknown.

    Raises ConfigError, with the candidates, if it is the end of several paths.
    """
    found = files_named([used.path for used in manifest.sources], name)
    if len(found) > 1:
        kind = "file" if all(path in paths for path, paths in found.items()) else "partition"
        raise ConfigError(
            f"{name}: {location(output)} has used {count(len(found), kind)} of this name: "
            f"{first_of(list(found))}. Name one by more of its path"
        )
    return [path for paths in found.values() for path in paths]


def files_named(paths: Sequence[str], name: str) -> dict[str, list[str]]:
    """Return the files, or the partitions with their files, whose paths are or end in `name`.

    >>> files_named(["in/day=1/a.parquet", "in/day=2/a.parquet"], "day=2")
    {'in/day=2': ['in/day=2/a.parquet']}
    """
    if name in paths:
        return {name: [name]}
    end = "/" + name.lstrip("./").rstrip("/")
    found = {path: [path] for path in paths if path.endswith(end)}
    if found or "=" not in name:
        return found
    for path in dict.fromkeys(paths):
        before, folder, _ = f"/{path}".partition(f"{end}/")
        if folder:
            found.setdefault(f"{before}{end}"[1:], []).append(path)
    return found
