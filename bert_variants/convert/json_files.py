"""JSON that others wrote (config.json, indexes, headers): read within limits, errors with a place.

The standard reader takes the last of two equal keys, ``NaN``, and nesting until the stack ends.
This one refuses all three, and what would take more memory than a file of settings has to.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bert_variants.convert.errors import ConvertError
from bert_variants.convert.files import Source

MOST_BYTES = 4 << 20  # a config has 2 kB, the header of a model of 400 tensors 50 kB
# A tokenizer.json holds the whole vocabulary and all merges: give it these limits.
MOST_BYTES_OF_A_TOKENIZER, MOST_VALUES_OF_A_TOKENIZER = 64 << 20, 4_000_000
MOST_VALUES = 400_000  # of any kind; each takes memory, however few bytes it has in the file
DEEPEST = 32
LARGEST = 1e40  # "no limit" is written as 10^30 by some


class _Refused(ValueError):
    """Raised inside the standard reader."""


def read_json(
    path: Path, *, most_bytes: int = MOST_BYTES, most_values: int = MOST_VALUES
) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        ConvertError: no such file, or one that ``parse`` refuses.
    """
    source = Source.of(path)
    if source.size > most_bytes:
        raise ConvertError(f"{path} has {source.size:,} bytes, expected at most {most_bytes:,}.")
    return parse(source.read(0, source.size).tobytes(), str(path), most_values=most_values)


def parse(data: bytes, where: str, *, most_values: int = MOST_VALUES) -> dict[str, Any]:
    """The object that ``data`` is, as JSON.

    Args:
        data: of a size that the caller has bounded.
        where: the file, for messages.
        most_values: numbers, strings, lists and objects in it.

    Raises:
        ConvertError: it is not UTF-8, not JSON, no object, holds a key twice, a number beyond
            ``LARGEST`` or text that cannot be encoded, or is too deep or too much.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConvertError(f"{where}: byte {error.start} is not UTF-8 text.") from None
    values = sum(text.count(before) for before in "[{,")  # and those inside strings: a bound
    if values > most_values:
        raise ConvertError(
            f"{where} holds about {values:,} values, expected at most {most_values:,}."
        )
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except RecursionError:
        raise ConvertError(f"{where} is nested deeper than {DEEPEST} levels.") from None
    except ValueError as error:
        raise ConvertError(f"{where} is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise ConvertError(f"{where} is a JSON {_kind(value)}, expected an object.")
    _check(value, where)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise _Refused(f"the key {twice[:100]!r} stands in one object twice")
    return made


def _constant(name: str) -> Any:
    raise _Refused(f"{name} is no number of JSON")


def _check(value: Any, where: str) -> None:
    """Depth, text and numbers, level by level: without recursion, and without a call a value."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > DEEPEST:
            raise ConvertError(f"{where} is nested deeper than {DEEPEST} levels.")
        found = [key for one in level if isinstance(one, dict) for key in one]
        inner = [x for one in level for x in (one.values() if isinstance(one, dict) else one)]
        found += [x for x in inner if not isinstance(x, (dict, list))]
        for one in found:
            if isinstance(one, str) and not one.isascii():
                try:
                    one.encode()
                except UnicodeEncodeError:
                    raise ConvertError(f"{where}: {one[:100]!r} is half a character.") from None
            elif isinstance(one, (int, float)) and not -LARGEST < one < LARGEST:
                raise ConvertError(f"{where} holds a number beyond {LARGEST:.0e}.")
        level = [x for x in inner if isinstance(x, (dict, list))]


def _kind(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    kinds = {dict: "object", list: "list", str: "string", int: "number", float: "number"}
    return kinds[type(value)]


@dataclasses.dataclass(frozen=True)
class Fields:
    """An object of a JSON file, read field by field. Every error names the file and the field.

    ::

        said = Fields.read(folder / "config.json")
        width = said.integer("hidden_size", least=1)
        share = said.number("hidden_dropout_prob") if said.has("hidden_dropout_prob") else 0.1

    ``unread`` says which fields nothing asked for, so that none is ignored by accident.
    """

    where: str
    values: Mapping[str, Any]
    path: str = ""
    asked: set[str] = dataclasses.field(default_factory=set, compare=False, repr=False)

    @classmethod
    def read(cls, path: Path) -> Fields:
        """The object of a file."""
        return cls(str(path), read_json(path))

    def has(self, key: str) -> bool:
        """Whether the field is there and is not null. One that is null counts as read."""
        self.asked.add(key)
        return key in self.values and self.values[key] is not None

    def any(self, key: str) -> Any:
        """The field, whatever it is.

        Raises:
            ConvertError: it is not there.
        """
        self.asked.add(key)
        if key not in self.values:
            raise ConvertError(f"{self.where} has no field {self.path}{key}.")
        return self.values[key]

    def string(self, key: str) -> str:
        """A string."""
        return self._of(key, str, "a string")

    def boolean(self, key: str) -> bool:
        """true or false."""
        return self._of(key, bool, "true or false")

    def integer(self, key: str, *, least: int | None = None, most: int | None = None) -> int:
        """A whole number from ``least`` to ``most``, both included."""
        value = self._of(key, int, "a whole number")
        self._within(key, value, least, most)
        return value

    def number(
        self, key: str, *, least: int | float | None = None, most: int | float | None = None
    ) -> float:
        """A number from ``least`` to ``most``, both included."""
        value = float(self._of(key, (int, float), "a number"))
        self._within(key, value, least, most)
        return value

    def strings(self, key: str) -> list[str]:
        """A list of strings."""
        value = self._of(key, list, "a list of strings")
        if not all(isinstance(one, str) for one in value):
            raise self._wrong(key, value, "a list of strings")
        return value

    def fields(self, key: str) -> Fields:
        """An object."""
        return Fields(self.where, self._of(key, dict, "an object"), f"{self.path}{key}.")

    def unread(self) -> list[str]:
        """The fields that nothing asked for, sorted; those of inner objects are not among them."""
        return sorted(self.path + key for key in set(self.values) - self.asked)

    def _of(self, key: str, kind: Any, expected: str) -> Any:
        value = self.any(key)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self._wrong(key, value, expected)
        return value

    def _within(
        self, key: str, value: int | float, least: int | float | None, most: int | float | None
    ) -> None:
        if (least is not None and value < least) or (most is not None and value > most):
            low = f"at least {least}" if least is not None else ""
            high = f"at most {most}" if most is not None else ""
            raise self._wrong(key, value, " and ".join(x for x in (low, high) if x))

    def _wrong(self, key: str, value: Any, expected: str) -> ConvertError:
        said = repr(value) if isinstance(value, (int, float, type(None))) else _kind(value)
        said = repr(value[:60]) if isinstance(value, str) else said
        return ConvertError(f"{self.where}: {self.path}{key} is {said}, expected {expected}.")
