"""One registry for everything that can be swapped by name.

A dict a family, a decorator, and call-strings: ``lookup("corruption", "spans(p=0.2)")``. The
string is what stands in a config, on a command line, in a checkpoint's metadata and in an ablation
table. It is parsed with ``ast.literal_eval``; nothing in it is ever executed.

Each family has a package whose modules are imported on the first look-up, so **dropping a file
into the package is the registration**. Code outside the package (a notebook) registers by running
the decorator.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal

# family -> (package or module that holds its entries, arguments that are given at run time and
# so do not stand in a call-string)
FAMILIES: dict[str, tuple[str, int]] = {
    "source": ("bert_variants.text.sources", 0),
    "tokenizer": ("bert_variants.text.tokenizers", 0),
    "units": ("bert_variants.text.units", 1),
    "example": ("bert_variants.text.examples", 3),
    "corruption": ("bert_variants.corruptions", 3),
    "model": ("bert_variants.models", 0),
    "objective": ("bert_variants.objectives", 2),
    "optimizer": ("bert_variants.train.optim", 1),
    "schedule": ("bert_variants.train.optim", 2),
}

# What an entry declares of itself if it does not say otherwise.
_TRAITS: dict[str, dict[str, Any]] = {
    "corruption": {
        "gives": (),
        "needs": (),
        "calls": (),
        "check": None,
        "budget": "most",
        "random": True,
        "whole_words": False,
    },
    "objective": {"needs": ()},
    "example": {"labels": (), "order": "random"},
    "model": {"recurrent": False, "reads": ()},
    "units": {"files": ()},
}


class RegistryError(ValueError):
    """An unknown name or parameter, or a call-string that cannot be read."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One registered thing: its family, name, the callable, and what it declares of itself.

    ``traits`` are read by ``config.check``; see the families' packages for which exist.
    """

    family: str
    name: str
    fn: Callable[..., Any]
    traits: Mapping[str, Any]

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """The parameters that a call-string may set."""
        given = FAMILIES[self.family][1]
        reserved = self.traits["reserved"] if "reserved" in self.traits else ()
        items = list(inspect.signature(self.fn).parameters.items())[given:]
        return {k: p for k, p in items if k not in reserved and p.kind != p.VAR_KEYWORD}


@dataclasses.dataclass(frozen=True)
class Call:
    """A looked-up entry with its arguments bound. Calling it adds the run-time arguments."""

    entry: Entry
    kwargs: Mapping[str, Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.entry.fn(*args, **{**self.kwargs, **kwargs})

    @property
    def name(self) -> str:
        return self.entry.name

    def inner(self) -> tuple[Call, ...]:
        """The calls of the same family that stand in its arguments (those that ``calls`` names)."""
        traits = self.entry.traits
        found = []
        for name in traits["calls"] if "calls" in traits else ():
            value = self.argument(name)
            found += [lookup(self.entry.family, c) for c in _call_strings(self, name, value)]
        return tuple(found)

    @property
    def traits(self) -> Mapping[str, Any]:
        """What the entry declares. One that holds others gives what all of them give, needs what
        any of them needs, and has the labels that any of them has."""
        inner = [call.traits for call in self.inner()]
        whole = dict(self.entry.traits)
        for name, of_all in (("gives", True), ("needs", False), ("labels", False)):
            if not inner or name not in whole:
                continue
            found = [set(traits[name]) for traits in inner]
            merged = set.intersection(*found) if of_all else set.union(*found)
            whole[name] = tuple(sorted(merged.union(whole[name])))
        return whole

    def argument(self, name: str) -> Any:
        """The value of a parameter: as bound, else its default."""
        return self.kwargs[name] if name in self.kwargs else self.entry.parameters[name].default

    def __str__(self) -> str:
        return write(self.name, self.kwargs)


_ENTRIES: dict[str, dict[str, Entry]] = {family: {} for family in FAMILIES}


def register(family: str, name: str | None = None, **traits: Any) -> Callable[[Any], Any]:
    """Decorator: make a function or class known to ``family`` under ``name`` (its own name).

    Raises:
        RegistryError: unknown family, or a name that another object holds already.
    """
    _check_family(family)

    def add(fn: Any) -> Any:
        key = name or fn.__name__
        old = _ENTRIES[family].get(key)
        if old is not None and _origin(old.fn) != _origin(fn):
            raise RegistryError(
                f"{family} '{key}' is registered twice: by {'.'.join(_origin(old.fn))} and by "
                f"{'.'.join(_origin(fn))}. Rename one of them."
            )
        _ENTRIES[family][key] = Entry(family, key, fn, {**_TRAITS.get(family, {}), **traits})
        return fn

    return add


def names(family: str) -> list[str]:
    """The registered names of a family, sorted."""
    _load(family)
    return sorted(_ENTRIES[family])


def entry(family: str, name: str) -> Entry:
    """The entry of that name, or an error that names the nearest known one."""
    _check_family(family)
    if name not in _ENTRIES[family]:
        _load(family)
    if name not in _ENTRIES[family]:
        raise RegistryError(f"unknown {family} '{name}'.{nearest(name, names(family))}")
    return _ENTRIES[family][name]


def lookup(family: str, call: str) -> Call:
    """Read a call-string such as ``spans(p=0.2, max_words=10)`` and bind its arguments.

    Raises:
        RegistryError: a string that cannot be read, an unknown name or parameter (the nearest
            known one is named), a parameter given twice, or a value of another kind than the
            parameter's default; the same for a call-string among the arguments; or what
            the entry's own ``check`` refuses.
    """
    name, args, kwargs = parse(call)
    found = entry(family, name)
    parameters = found.parameters
    positional = [
        k for k, p in parameters.items() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if len(args) > len(positional):
        raise RegistryError(
            f"{family} '{call}': {len(args)} positional arguments, at most {len(positional)} are "
            f"taken. Name them: {', '.join(parameters)}."
        )
    bound = dict(zip(positional, args, strict=False))
    for key, value in kwargs.items():
        if key in bound:
            raise RegistryError(f"{family} '{call}': parameter '{key}' is given twice.")
        if key not in parameters:
            hint = nearest(key, list(parameters))
            raise RegistryError(f"{family} '{name}' has no parameter '{key}'.{hint}")
        bound[key] = value
    for key, value in bound.items():
        _check_kind(family, call, key, value, parameters[key].default)
        _check_choice(found, call, key, value)
    missing = [k for k, p in parameters.items() if p.default is p.empty and k not in bound]
    if missing:
        raise RegistryError(f"{family} '{call}' lacks its argument '{missing[0]}'.")
    made = Call(found, bound)
    _check_whole(made)
    return made


def parse(call: str) -> tuple[str, list[Any], dict[str, Any]]:
    """Split ``name(1, k=2)`` into ``("name", [1], {"k": 2})``; a bare ``name`` is ``name()``."""
    try:
        node = ast.parse(call.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise RegistryError(
            f"cannot read {call!r}: {error}. Expected name or name(key=value)."
        ) from None
    if isinstance(node, ast.Name):
        return node.id, [], {}
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise RegistryError(f"cannot read {call!r}: expected name or name(key=value).")
    try:
        args = [ast.literal_eval(a) for a in node.args]
        kwargs = {k.arg: ast.literal_eval(k.value) for k in node.keywords if k.arg}
    except ValueError:
        raise RegistryError(
            f"cannot read {call!r}: arguments must be literals (numbers, strings, True, None, "
            "tuples, lists)."
        ) from None
    if len(kwargs) != len(node.keywords):
        raise RegistryError(f"cannot read {call!r}: '**' or a repeated keyword is not allowed.")
    return node.func.id, args, kwargs


def write(name: str, kwargs: Mapping[str, Any]) -> str:
    """The canonical call-string: the inverse of ``parse``."""
    return f"{name}({', '.join(f'{k}={v!r}' for k, v in kwargs.items())})"


def edit(call: str, **changes: Any) -> str:
    """``edit("spans(p=0.2)", max_words=5)`` gives ``"spans(p=0.2, max_words=5)"``."""
    name, args, kwargs = parse(call)
    kwargs.update(changes)
    inner = [repr(a) for a in args] + [f"{k}={v!r}" for k, v in kwargs.items()]
    return f"{name}({', '.join(inner)})"


def _origin(fn: Any) -> tuple[str, str]:
    return fn.__module__, fn.__qualname__


def _check_family(family: str) -> None:
    if family not in FAMILIES:
        raise RegistryError(f"unknown family '{family}'.{nearest(family, list(FAMILIES))}")


@functools.cache
def _load(family: str) -> None:
    _check_family(family)
    package = importlib.import_module(FAMILIES[family][0])
    for module in pkgutil.iter_modules(getattr(package, "__path__", [])):
        importlib.import_module(f"{package.__name__}.{module.name}")


def nearest(name: str, known: list[str]) -> str:
    """The end of an error message: " Did you mean 'x'? Known: w, x, y." """
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"{hint} Known: {', '.join(sorted(known)) or 'none'}."


def _check_choice(found: Entry, call: str, key: str, value: Any) -> None:
    """A parameter that is annotated as a Literal takes one of its values."""
    hint = _hints(found.fn).get(key) if isinstance(value, str) else None
    if typing.get_origin(hint) is Literal and value not in typing.get_args(hint):
        raise RegistryError(
            f"{found.family} '{call}': parameter '{key}' is {value!r}."
            f"{nearest(value, list(typing.get_args(hint)))}"
        )


@functools.cache
def _hints(fn: Any) -> dict[str, Any]:
    return typing.get_type_hints(fn)


def _check_kind(family: str, call: str, key: str, value: Any, default: Any) -> None:
    if default is inspect.Parameter.empty or default is None or value is None:
        return
    kinds = {bool: (bool,), int: (int,), float: (int, float), str: (str,)}
    allowed = kinds.get(type(default))
    if allowed is None:
        return
    wrong_bool = isinstance(value, bool) and type(default) is not bool
    if wrong_bool or not isinstance(value, allowed):
        raise RegistryError(
            f"{family} '{call}': parameter '{key}' is {value!r}, expected "
            f"{type(default).__name__} (such as {default!r})."
        )


def _call_strings(call: Call, name: str, value: Any) -> tuple[str, ...]:
    """The call-strings that a parameter holds: one, or several."""
    several = (value,) if isinstance(value, str) else value
    if not isinstance(several, (list, tuple)) or not several:
        several = (None,)
    if not all(isinstance(one, str) for one in several):
        raise RegistryError(
            f"parameter '{name}' of '{call.name}' is {value!r}, expected call-strings."
        )
    return tuple(several)


def _check_whole(call: Call) -> None:
    """What its arguments name is known too, and they fit one another."""
    try:
        call.inner()
    except RegistryError as error:
        raise RegistryError(f"in {call.entry.family} '{call.name}': {error}") from None
    traits = call.entry.traits
    if "check" in traits and traits["check"] is not None:
        traits["check"](call)
