"""What pytest collects: doctests are those of streamrnn, not of the helpers of its tests."""

from pathlib import Path

# A helper that makes golden values imports a framework, which the light suite does not have.
collect_ignore = [
    str(path) for path in Path(__file__).parent.rglob("*.py") if not path.name.startswith("test_")
]
