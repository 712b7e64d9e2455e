"""A machine that reads pickle streams without executing anything in them.

A pickle is a program for a small stack machine whose instructions may import and call whatever
they name. This one knows only the instructions that build plain data, and only the names that its
caller maps to functions of ours; any other instruction or name ends the reading. Nothing is ever
imported, no object of a class from outside is ever made.

What comes out: None, bool, int, float, str, list, dict (Items where an attribute dictionary may
follow), tuple, set; `Blob` for long byte strings, which stay in the file; `Obj` for instances of
known classes; and what the mapped functions return. Values may be shared or cyclic: whoever walks
them must bound the walk.

Only what Python writes at protocol 2 and later is read. Source of the format: the module
`pickletools` of the standard library.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.errors import WeightsError

OPCODES_AT_MOST = 300_000  # a published file with three networks has 55,000
TEXT_AT_MOST = 16 << 20  # bytes; a published file has half a megabyte, source code included
MARKS_AT_MOST = 1000
LONG_AT_MOST = 16  # bytes of an integer
KEY_AT_MOST = 1 << 16  # characters

REMEDY = "Download the file again from its original place, or ask its maker for a .safetensors."
Buffer = Any  # what struct and slices take: bytes, mmap.mmap


def damaged(cause: BaseException | None = None) -> WeightsError:
    """The sentence for a stream that ends early or contradicts itself."""
    error = WeightsError("The model's file is damaged or incomplete.", REMEDY)
    error.__cause__ = cause
    return error


def too_large() -> WeightsError:
    """The sentence for a stream that would unpack to far more than any model."""
    return WeightsError("The model's file would unpack to far more than a model holds.", REMEDY)


def printable(text: str, length: int = 80) -> str:
    """A name from a file, fit for a sentence."""
    shown = "".join(c if c.isprintable() else "?" for c in text[: length + 1])
    return shown if len(shown) <= length else shown[:length] + "…"


class Items(dict):
    """A dictionary that may be followed by an attribute dictionary, which is dropped."""


@dataclass(eq=False)
class Obj:
    """An instance of a class, by name; state: its attributes."""

    name: str
    state: dict = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Blob:
    """Bytes that stay where they are: data[start : start + length]."""

    data: Buffer
    start: int
    length: int

    def read(self, at_most: int) -> bytes:
        """A copy; raises WeightsError if it is longer than at_most."""
        if self.length > at_most:
            raise damaged()
        return bytes(self.data[self.start : self.start + self.length])


@dataclass(frozen=True, eq=False)
class Name:
    """What a name in a stream stands for: call for REDUCE, new for NEWOBJ; None where the file has
    no business doing so. detail: whatever the mapped functions need."""

    name: str
    call: Callable[..., Any] | None = None
    new: Callable[[], Any] | None = None
    detail: Any = None


@dataclass
class Budget:
    """What is left for all streams of one file."""

    opcodes: int = OPCODES_AT_MOST
    text: int = TEXT_AT_MOST

    def take_text(self, length: int) -> None:
        """Raises WeightsError when there is none left."""
        self.text -= length
        if self.text < 0:
            raise too_large()


_MARK = object()
_BINARY = {  # instruction: layout of its number
    0x8A: "<B", 0x8B: "<i",  # LONG1, LONG4
    0x8C: "<B", 0x58: "<I", 0x8D: "<Q",  # SHORT_BINUNICODE, BINUNICODE, BINUNICODE8
    0x43: "<B", 0x42: "<I", 0x8E: "<Q",  # SHORT_BINBYTES, BINBYTES, BINBYTES8
    0x71: "<B", 0x72: "<I",  # BINPUT, LONG_BINPUT
    0x68: "<B", 0x6A: "<I",  # BINGET, LONG_BINGET
    0x4B: "<B", 0x4D: "<H", 0x4A: "<i",  # BININT1, BININT2, BININT
    0x47: ">d", 0x95: "<Q", 0x80: "<B",  # BINFLOAT, FRAME, PROTO
}  # fmt: skip
_LAYOUTS = {op: struct.Struct(layout) for op, layout in _BINARY.items()}
_CONSTANTS = {0x4E: None, 0x88: True, 0x89: False, 0x29: ()}  # NONE, NEWTRUE, NEWFALSE, EMPTY_TUPLE
_EMPTY = {0x5D: list, 0x7D: dict, 0x8F: set}  # EMPTY_LIST, EMPTY_DICT, EMPTY_SET
_TUPLES = {0x85: 1, 0x86: 2, 0x87: 3}


class Machine:
    """Runs one stream of data[start:end].

    names: (module, name) -> Name, all that the stream may mention; persistent: what a persistent
    id becomes (None: there are none).
    """

    def __init__(
        self,
        data: Buffer,
        start: int,
        end: int,
        names: Mapping[tuple[str, str], Name],
        budget: Budget,
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        self.data, self.at, self.end = data, start, end
        self.names, self.budget, self.persistent = names, budget, persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.marks = 0

    def run(self) -> Any:
        """The stream's value; `at` is then the first byte after it. Raises WeightsError."""
        try:
            if self._byte() != 0x80:
                raise damaged()
            self.at -= 1
            while (op := self._byte()) != 0x2E:  # STOP
                self.budget.opcodes -= 1
                if self.budget.opcodes < 0:
                    raise too_large()
                self._step(op)
            if len(self.stack) != 1 or self.stack[0] is _MARK:
                raise damaged()
            return self.stack.pop()
        except (
            ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError,
            struct.error,
        ) as error:  # fmt: skip
            raise damaged(error) from error

    def _byte(self) -> int:
        if self.at >= self.end:
            raise damaged()
        self.at += 1
        return self.data[self.at - 1]

    def _span(self, length: int) -> int:
        """The start of the next `length` bytes, which are passed over."""
        if not 0 <= length <= self.end - self.at:
            raise damaged()
        self.at += length
        return self.at - length

    def _number(self, op: int) -> Any:
        layout = _LAYOUTS[op]
        return layout.unpack_from(self.data, self._span(layout.size))[0]

    def _step(self, op: int) -> None:
        stack = self.stack
        if op in _CONSTANTS:
            stack.append(_CONSTANTS[op])
        elif op in _EMPTY:
            stack.append(_EMPTY[op]())
        elif op in (0x68, 0x6A):  # BINGET, LONG_BINGET
            stack.append(self.memo[self._number(op)])
        elif op == 0x94:  # MEMOIZE
            self._remember(len(self.memo))
        elif op in (0x71, 0x72):  # BINPUT, LONG_BINPUT
            self._remember(self._number(op))
        elif op in (0x4B, 0x4D, 0x4A, 0x47):  # BININT*, BINFLOAT
            stack.append(self._number(op))
        elif op in (0x8C, 0x58, 0x8D):
            stack.append(self._text(self._number(op)))
        elif op in (0x43, 0x42, 0x8E):
            length = self._number(op)
            stack.append(Blob(self.data, self._span(length), length))
        elif op == 0x28:  # MARK
            self.marks += 1
            if self.marks > MARKS_AT_MOST:
                raise too_large()
            stack.append(_MARK)
        elif op in _TUPLES:
            stack.append(tuple(self._pop(_TUPLES[op])))
        elif op == 0x74:  # TUPLE
            stack.append(tuple(self._to_mark()))
        elif op in (0x61, 0x65):  # APPEND, APPENDS
            items = self._pop(1) if op == 0x61 else self._to_mark()
            self._top(list).extend(items)
        elif op in (0x73, 0x75):  # SETITEM, SETITEMS
            items = self._pop(2) if op == 0x73 else self._to_mark()
            self._top(dict).update(_pairs(items))
        elif op == 0x90:  # ADDITEMS
            self._top(set).update(_key(k) for k in self._to_mark())
        elif op == 0x63:  # GLOBAL
            stack.append(self._name(self._line(), self._line()))
        elif op == 0x93:  # STACK_GLOBAL
            stack.append(self._name(*self._pop(2)))
        elif op == 0x52:  # REDUCE
            function, arguments = self._pop(2)
            stack.append(_call(function, arguments))
        elif op == 0x81:  # NEWOBJ
            kind, arguments = self._pop(2)
            if not isinstance(kind, Name) or kind.new is None or arguments != ():
                raise damaged()
            stack.append(kind.new())
        elif op == 0x62:  # BUILD
            self._build(*self._pop(1))
        elif op == 0x51:  # BINPERSID
            if self.persistent is None:
                raise damaged()
            stack.append(self.persistent(*self._pop(1)))
        elif op in (0x8A, 0x8B):  # LONG1, LONG4
            length = self._number(op)
            if length > LONG_AT_MOST:
                raise too_large()
            start = self._span(length)
            stack.append(int.from_bytes(self.data[start : start + length], "little", signed=True))
        elif op == 0x95:  # FRAME: only a hint for readers that buffer
            if self._number(op) > self.end - self.at:
                raise damaged()
        elif op == 0x80:  # PROTO
            if not 2 <= self._number(op) <= 5:
                raise damaged()
        else:
            raise WeightsError(
                f"The model's file holds an instruction (0x{op:02x}) that model files do not need.",
                REMEDY,
            )

    def _text(self, length: int) -> str:
        self.budget.take_text(length)
        start = self._span(length)
        return bytes(self.data[start : start + length]).decode("utf-8", "surrogatepass")

    def _line(self) -> str:
        """A text up to the end of the line, as GLOBAL has them."""
        stop = self.data.find(b"\n", self.at, min(self.end, self.at + 512))
        if stop < 0:
            raise damaged()
        text = self._text(stop - self.at)
        self.at += 1
        return text

    def _name(self, module: str, name: str) -> Name:
        if not isinstance(module, str) or not isinstance(name, str):
            raise damaged()
        known = self.names.get((module, name))
        if known is None:
            raise WeightsError(
                f"The model's file asks for {printable(f'{module}.{name}')}, which model files do "
                "not need; nothing in it was executed.",
                REMEDY,
            )
        return known

    def _remember(self, key: int) -> None:
        if not self.stack or self.stack[-1] is _MARK:
            raise damaged()
        self.memo[key] = self.stack[-1]

    def _pop(self, count: int) -> list[Any]:
        items = self.stack[-count:]
        if len(items) < count or _MARK in items:
            raise damaged()
        del self.stack[-count:]
        return items

    def _to_mark(self) -> list[Any]:
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                items = self.stack[index + 1 :]
                del self.stack[index:]
                self.marks -= 1
                return items
        raise damaged()

    def _top(self, kind: type) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kind):
            raise damaged()
        return self.stack[-1]

    def _build(self, state: Any) -> None:
        thing = self.stack[-1]
        if isinstance(thing, Obj) and isinstance(state, dict):
            thing.state.update(state)
        elif isinstance(thing, Items) and isinstance(state, dict):
            return  # attributes of a dictionary, such as a state dict's version numbers
        elif hasattr(thing, "set_state"):
            thing.set_state(state)
        else:
            raise damaged()


def _call(function: Any, arguments: Any) -> Any:
    if not isinstance(function, Name) or not isinstance(arguments, tuple):
        raise damaged()
    if function.call is None:
        raise WeightsError(
            f"The model's file misuses {printable(function.name)}; nothing in it was executed.",
            REMEDY,
        )
    return function.call(*arguments)


def _pairs(items: list[Any]) -> list[tuple[Any, Any]]:
    if len(items) % 2:
        raise damaged()
    return [(_key(k), v) for k, v in zip(items[::2], items[1::2])]


def _key(key: Any) -> str | int:
    """Only texts and small integers are keys: hashing a nested tuple may take for ever, and large
    integers can be chosen to collide."""
    if not isinstance(key, str | int) or (isinstance(key, int) and abs(key) > 1 << 31):
        raise damaged()
    if isinstance(key, str) and len(key) > KEY_AT_MOST:
        raise too_large()
    return key
