"""What a row of a contract table declares, and the check that no registered class lacks one.

A row says of each contract that it holds, how it is judged (a function of its own), or why it does
not apply: a sentence. `assert_declared` fails for a class without a row, a row without a class, and
a reason that says nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

Contract = bool | str | Callable[..., Any]
HOLDS = True


@dataclass(frozen=True)
class Row:
    """The base of rows: each field whose type is `Contract` is a contract."""

    def contracts(self) -> dict[str, Contract]:
        """Name -> what the row declares."""
        named = [field.name for field in fields(self) if field.type is Contract]
        return {name: getattr(self, name) for name in named}


def holding(rows: Mapping[str, Any], contract: str) -> list[str]:
    """The rows for which a contract holds: parameters of the test that checks it."""
    return [name for name, row in rows.items() if not isinstance(getattr(row, contract), str)]


def reasoned(rows: Mapping[str, Any], contract: str) -> list[str]:
    """The rows that say why a contract does not apply."""
    return [name for name, row in rows.items() if isinstance(getattr(row, contract), str)]


def assert_declared(
    kind: str, registered: Iterable[str], rows: Mapping[str, Any], file: str
) -> None:
    """Every registered name has a row, called by it or name/variant, and no row is left over."""
    known, declared = set(registered), {name.partition("/")[0] for name in rows}
    missing, left = sorted(known - declared), sorted(declared - known)
    assert not missing, f"{kind} without a row of contracts: add one for {missing} to {file}"
    assert not left, f"rows of contracts for no {kind}: take {left} out of {file}"
    for name, row in rows.items():
        for contract, declared_as in row.contracts().items():
            assert _says_something(declared_as), (
                f"{file}: {kind} {name!r}: {contract} must hold, or say in a sentence why it does "
                f"not apply; it says {declared_as!r}"
            )


def _says_something(declared: Contract) -> bool:
    if isinstance(declared, str):
        return len(declared.split()) >= 4 and declared.endswith(".")
    return declared is HOLDS or callable(declared)
