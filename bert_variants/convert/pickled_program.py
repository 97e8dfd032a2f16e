"""What a pickle of tensors says, without running it.

A pickle is a program for a machine with a stack. This machine knows the instructions that
``torch.save`` writes for a dictionary of tensors (protocols 2 to 4), and a few kinds of value:
text, whole numbers, truth values, nothing, tuples, lists, dictionaries and names. A name is looked
up in the table ``KNOWN`` and never imported; the functions in it are not called but understood.
Anything else ends the reading with an error that names it.

The machine is bounded: it takes one step an instruction, keeps at most ``MOST_VALUES`` values, and
looks into a value only where a tensor needs it, so values that hold one another many times over
cost nothing. Instructions: docs of the standard module ``pickletools``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from bert_variants.convert.errors import ConvertError

MOST_VALUES = 100_000  # that a program makes; a tensor takes about twelve

STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


class RefusedError(ConvertError):
    """A program that does anything but build a dictionary of tensors."""


@dataclasses.dataclass(frozen=True)
class Name:
    """A function or class that the program names, ``module`` and ``name``, not imported."""

    module: str
    name: str


@dataclasses.dataclass(frozen=True)
class Storage:
    """``count`` numbers of a type, in the archive's file ``data/KEY``."""

    dtype: str
    key: str
    count: int


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A view of a storage; offset and strides are counted in numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


REBUILD = Name("torch._utils", "_rebuild_tensor_v2")
PARAMETER = Name("torch._utils", "_rebuild_parameter")
ORDERED = Name("collections", "OrderedDict")
KNOWN = {REBUILD, PARAMETER, ORDERED, *(Name("torch", name) for name in STORAGES)}


def run(program: bytes) -> dict[str, Tensor]:
    """The dictionary of tensors that a program builds.

    Raises:
        RefusedError: it builds anything else, or is damaged. Starts with a verb: "names os.system".
    """
    machine = _Machine(program)
    value = machine.run()
    if not isinstance(value, dict):
        raise RefusedError(f"builds {_kind(value)}, expected a dictionary of tensors.")
    wrong = [
        f"{str(key)[:100]!r} is {_kind(v)}"
        for key, v in value.items()
        if not isinstance(v, Tensor) or not isinstance(key, str)
    ]
    if wrong:
        shown = "; ".join(wrong[:20]) + (f"; and {len(wrong) - 20} more" if wrong[20:] else "")
        raise RefusedError(f"builds a dictionary of other things than tensors: {shown}.")
    return value


def _kind(value: Any) -> str:
    """What a value is, without what it holds, which may be endless."""
    names = {str: "text", int: "a number", bool: "a truth value", type(None): "nothing"}
    names |= {tuple: "a tuple", dict: "a dictionary", list: "a list", float: "a number"}
    names |= {Tensor: "a tensor", Storage: "a storage", Name: "a name", bytes: "bytes"}
    return names[type(value)]


class _Machine:
    """The stack, the marks on it and the memory of one program."""

    def __init__(self, program: bytes) -> None:
        self.program, self.at, self.begun = program, 0, 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memory: dict[int, Any] = {}
        self.made = 0

    def run(self) -> Any:
        """Walk to the end; the value that is on the stack then."""
        while True:
            self.begun = self.at
            code = self.take(1)
            if code == b".":
                return self.pop()
            if code not in _INSTRUCTIONS:
                raise self.refused(f"has the instruction {code!r}, which tensors do not need")
            _INSTRUCTIONS[code](self)

    def refused(self, what: str) -> RefusedError:
        """An error that says where."""
        return RefusedError(f"{what} (byte {self.begun:,}).")

    # ---- bytes

    def take(self, count: int) -> bytes:
        """The next bytes of the program."""
        if count > len(self.program) - self.at:
            raise self.refused("is cut short")
        taken = self.program[self.at : self.at + count]
        self.at += count
        return taken

    def number(self, count: int, signed: bool = False) -> int:
        """A whole number of so many bytes."""
        return int.from_bytes(self.take(count), "little", signed=signed)

    def line(self) -> str:
        """Text up to the end of the line."""
        end = self.program.find(b"\n", self.at, self.at + 300)
        if end < 0:
            raise self.refused("has a name without an end")
        return self.text(self.take(end + 1 - self.at)[:-1])

    def text(self, data: bytes) -> str:
        """Text in UTF-8."""
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise self.refused("has text that is not UTF-8") from None

    # ---- the stack

    def count(self) -> None:
        """One thing more to keep."""
        self.made += 1
        if self.made > MOST_VALUES:
            raise self.refused(f"makes more than {MOST_VALUES:,} values")

    def mark(self) -> None:
        """Remember how much is on the stack."""
        self.count()
        self.marks.append(len(self.stack))

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self.count()
        self.stack.append(value)

    def pop(self) -> Any:
        """Take the last value off the stack, above the last mark."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise self.refused("takes a value from an empty stack")
        return self.stack.pop()

    def since_mark(self) -> list[Any]:
        """Take everything above the last mark, and the mark."""
        if not self.marks:
            raise self.refused("has no mark")
        start = self.marks.pop()
        found = self.stack[start:]
        del self.stack[start:]
        return found

    def top(self, kind: type, what: str) -> Any:
        """The last value, which stays, and has to be of a kind."""
        value = self.pop()
        if type(value) is not kind:
            raise self.refused(f"has {_kind(value)} where {what} is needed")
        self.stack.append(value)
        return value

    def remember(self, key: int) -> None:
        """Keep the last value under a number."""
        value = self.pop()
        self.stack.append(value)
        self.count()
        self.memory[key] = value

    def recall(self, key: int) -> None:
        """Push the value that is kept under a number."""
        if key not in self.memory:
            raise self.refused(f"recalls number {key}, which it never kept")
        self.push(self.memory[key])

    # ---- names and what is made with them

    def named(self, module: str, name: str) -> None:
        """Push a name that is known."""
        found = Name(module, name)
        if found not in KNOWN:
            raise self.refused(
                f"names {module[:100]}.{name[:100]}, which a dictionary of tensors has no need "
                "of. It may be malicious: do not load it with anything else either"
            )
        self.push(found)

    def stack_global(self) -> None:
        """A name whose parts are on the stack."""
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise self.refused("names what is no text")
        self.named(module, name)

    def storage(self) -> None:
        """A reference to a file of the archive: ("storage", type, key, device, count)."""
        said = self.pop()
        match said:
            case ("storage", Name("torch", kind), str(key), str(), int(count)) if (
                kind in STORAGES and re.fullmatch(r"[0-9]{1,10}", key) and type(count) is int
            ):
                if count < 0:
                    raise self.refused("has a storage of a negative size")
                self.push(Storage(STORAGES[kind], key, count))
            case _:
                raise self.refused("refers to something that is no storage of the archive")

    def call(self) -> None:
        """What a known function makes of its arguments."""
        given, name = self.pop(), self.pop()
        if name == ORDERED and given == ():
            self.push({})
        elif name == REBUILD:
            self.push(self.tensor(given))
        elif name == PARAMETER and isinstance(given, tuple) and len(given) == 3:
            if not isinstance(given[0], Tensor):
                raise self.refused("has a parameter that is no tensor")
            self.push(given[0])
        else:
            what = f"{name.module}.{name.name}" if isinstance(name, Name) else _kind(name)
            raise self.refused(f"calls {what} with arguments that no tensor has")

    def tensor(self, given: Any) -> Tensor:
        """(storage, offset, shape, strides, requires_grad, hooks, and metadata at times)."""
        if not isinstance(given, tuple) or not 6 <= len(given) <= 7:
            raise self.refused("has a tensor of other parts than torch writes")
        storage, offset, shape, strides, gradient, hooks = given[:6]
        if (
            not isinstance(storage, Storage)
            or type(offset) is not int
            or not _sizes(shape)
            or not _sizes(strides)
            or not isinstance(gradient, bool)
            or not (isinstance(hooks, dict) and not hooks)
            or (len(given) == 7 and given[6] not in (None, {}))
        ):
            raise self.refused("has a tensor of other parts than torch writes")
        return Tensor(storage, offset, shape, strides)

    def build(self) -> None:
        """Attributes of a dictionary: torch keeps versions of modules there, which are ignored."""
        state = self.pop()
        self.top(dict, "a dictionary")
        if not isinstance(state, dict) or set(state) != {"_metadata"}:
            raise self.refused("sets attributes that a dictionary of tensors does not have")

    # ---- containers

    def set_items(self, items: list[Any]) -> None:
        """Put keys and values, by turns, into the dictionary on the stack."""
        into = self.top(dict, "a dictionary")
        if len(items) % 2:
            raise self.refused("has a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str) and type(key) is not int:
                raise self.refused(f"has {_kind(key)} as a key")
            if key in into:
                raise self.refused(f"has the key {str(key)[:100]!r} twice")
            into[key] = value

    def append(self, items: list[Any]) -> None:
        """Put values into the list on the stack."""
        self.top(list, "a list").extend(items)

    def last(self, count: int) -> list[Any]:
        """Take so many values off the stack, in the order in which they were put there."""
        return [self.pop() for _ in range(count)][::-1]


def _sizes(value: Any) -> bool:
    return isinstance(value, tuple) and all(type(x) is int for x in value)


def _protocol(m: _Machine) -> None:
    version = m.number(1)
    if not 2 <= version <= 4:
        raise m.refused(f"is of protocol {version}, expected 2 to 4")


def _long(m: _Machine) -> None:
    size = m.number(1)
    if size > 8:
        raise m.refused(f"has a number of {size} bytes")
    m.push(m.number(size, signed=True))


# code -> what it does; their names in pickletools stand beside them.
_INSTRUCTIONS: dict[bytes, Callable[[_Machine], Any]] = {
    b"\x80": _protocol,  # PROTO
    b"\x95": lambda m: m.take(8),  # FRAME: a hint for buffers
    b"(": _Machine.mark,  # MARK
    b"c": lambda m: m.named(m.line(), m.line()),  # GLOBAL
    b"\x93": _Machine.stack_global,  # STACK_GLOBAL
    b"Q": _Machine.storage,  # BINPERSID
    b"R": _Machine.call,  # REDUCE
    b"b": _Machine.build,  # BUILD
    b"}": lambda m: m.push({}),  # EMPTY_DICT
    b"]": lambda m: m.push([]),  # EMPTY_LIST
    b")": lambda m: m.push(()),  # EMPTY_TUPLE
    b"t": lambda m: m.push(tuple(m.since_mark())),  # TUPLE
    b"\x85": lambda m: m.push(tuple(m.last(1))),  # TUPLE1
    b"\x86": lambda m: m.push(tuple(m.last(2))),  # TUPLE2
    b"\x87": lambda m: m.push(tuple(m.last(3))),  # TUPLE3
    b"s": lambda m: m.set_items(m.last(2)),  # SETITEM
    b"u": lambda m: m.set_items(m.since_mark()),  # SETITEMS
    b"a": lambda m: m.append(m.last(1)),  # APPEND
    b"e": lambda m: m.append(m.since_mark()),  # APPENDS
    b"N": lambda m: m.push(None),  # NONE
    b"\x88": lambda m: m.push(True),  # NEWTRUE
    b"\x89": lambda m: m.push(False),  # NEWFALSE
    b"K": lambda m: m.push(m.number(1)),  # BININT1
    b"M": lambda m: m.push(m.number(2)),  # BININT2
    b"J": lambda m: m.push(m.number(4, signed=True)),  # BININT
    b"\x8a": _long,  # LONG1
    b"X": lambda m: m.push(m.text(m.take(m.number(4)))),  # BINUNICODE
    b"\x8c": lambda m: m.push(m.text(m.take(m.number(1)))),  # SHORT_BINUNICODE
    b"q": lambda m: m.remember(m.number(1)),  # BINPUT
    b"r": lambda m: m.remember(m.number(4)),  # LONG_BINPUT
    b"\x94": lambda m: m.remember(len(m.memory)),  # MEMOIZE
    b"h": lambda m: m.recall(m.number(1)),  # BINGET
    b"j": lambda m: m.recall(m.number(4)),  # LONG_BINGET
}
