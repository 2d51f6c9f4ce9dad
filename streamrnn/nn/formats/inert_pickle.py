"""The values of a pickle as inert data: no class is looked up, and no code of the file runs.

Only `pickletools.genops` reads the bytes. A class or function becomes a `Global`, a call of it a
`Made`, and a value without importance here None.
"""

import pickletools
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import IO, Any

MAX_OPCODES = 5_000_000
_ORDERED_DICT = "collections.OrderedDict"


@dataclass(frozen=True)
class Global:
    """A class or function that the pickle names: module.name."""

    name: str


@dataclass
class Made:
    """A call that the pickle asks for, with the state that the result would be given."""

    function: str
    arguments: tuple[Any, ...] = ()
    state: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pickled:
    """The value of a pickle, all classes and functions that it names, and its protocol."""

    value: Any
    globals: frozenset[str]
    protocol: int


class _Machine:
    """The stack and the memo of a pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.globals: set[str] = set()
        self.protocol = 0

    def to_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def run(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """Carry out one opcode; an unknown one takes its operands and gives None."""
        name = opcode.name
        if name == "MARK":
            self.marks.append(len(self.stack))
        elif name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[len(self.memo) if argument is None else int(argument)] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo.get(int(argument)))
        elif name == "PROTO":
            self.protocol = argument
        elif name in _FROM_MARK:
            _FROM_MARK[name](self, self.to_mark())
        elif name in _FROM_STACK:
            count, operation = _FROM_STACK[name]
            operands = self.stack[len(self.stack) - count :]
            del self.stack[len(self.stack) - count :]
            self.stack.append(operation(*operands))
        elif name == "GLOBAL":
            self.stack.append(self._global(*str(argument).split(" ", 1)))
        elif name == "STACK_GLOBAL":
            self.stack[-2:] = [self._global(*self.stack[-2:])]
        elif not opcode.stack_before and len(opcode.stack_after) == 1:
            self.stack.append(_EMPTY[name]() if name in _EMPTY else argument)
        else:
            self._skip(opcode)

    def _global(self, module: str, name: str) -> Global:
        found = Global(f"{module}.{name}")
        self.globals.add(found.name)
        return found

    def _skip(self, opcode: pickletools.OpcodeInfo) -> None:
        kinds = [kind.name for kind in opcode.stack_before]
        if "mark" in kinds:
            self.to_mark()
            kinds = kinds[: kinds.index("mark")]
        del self.stack[len(self.stack) - len(kinds) :]
        self.stack += [None] * len(opcode.stack_after)


def read_values(file: IO[bytes]) -> Pickled:
    """Read the pickle at the file's position, which moves behind its end.

    Raises ValueError or LookupError if it is damaged or too long.
    """
    machine = _Machine()
    for number, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if number > MAX_OPCODES:
            raise ValueError("too long")
        if opcode.name == "STOP":
            return Pickled(machine.stack[-1], frozenset(machine.globals), machine.protocol)
        machine.run(opcode, argument)
    raise ValueError("no end")


def _set_items(target: Any, items: list[Any]) -> Any:
    if isinstance(target, dict):
        pairs = zip(items[::2], items[1::2], strict=True)
        target.update((key, value) for key, value in pairs if isinstance(key, Hashable))
    return target


def _extend(target: Any, items: list[Any]) -> Any:
    if isinstance(target, list):
        target += items
    return target


def _call(function: Any, arguments: Any) -> Any:
    name = function.name if isinstance(function, Global) else ""
    if name == _ORDERED_DICT:
        return {}
    return Made(name, arguments if isinstance(arguments, tuple) else ())


def _build(target: Any, state: Any) -> Any:
    if isinstance(target, Made) and isinstance(state, dict):
        target.state = state
    return target


_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
}
_FROM_MARK: dict[str, Callable[[_Machine, list[Any]], object]] = {
    "TUPLE": lambda machine, items: machine.stack.append(tuple(items)),
    "LIST": lambda machine, items: machine.stack.append(items),
    "DICT": lambda machine, items: machine.stack.append(_set_items({}, items)),
    "SETITEMS": lambda machine, items: _set_items(machine.stack[-1], items),
    "APPENDS": lambda machine, items: _extend(machine.stack[-1], items),
}
_FROM_STACK: dict[str, tuple[int, Callable[..., Any]]] = {
    "TUPLE1": (1, lambda *items: items),
    "TUPLE2": (2, lambda *items: items),
    "TUPLE3": (3, lambda *items: items),
    "SETITEM": (3, lambda target, key, value: _set_items(target, [key, value])),
    "APPEND": (2, lambda target, item: _extend(target, [item])),
    "REDUCE": (2, _call),
    "NEWOBJ": (2, _call),
    "NEWOBJ_EX": (3, lambda function, arguments, _: _call(function, arguments)),
    "BUILD": (2, _build),
    "BINPERSID": (1, lambda reference: reference),
}
