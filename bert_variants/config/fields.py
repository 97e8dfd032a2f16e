"""Fields by their dotted paths, and the error of all that is wrong with one."""

from __future__ import annotations

import dataclasses
from typing import Any

from bert_variants import registry


class ConfigError(ValueError):
    """A field that is unknown, of the wrong kind, out of range, or does not fit another one."""


def get_field(config: Any, path: str) -> Any:
    """The value at a dotted path."""
    for part in path.split("."):
        config = getattr(config, part)
    return config


def set_field(config: Any, path: str, value: Any) -> Any:
    """A copy of ``config`` with the value at a dotted path replaced.

    Raises:
        ConfigError: no such field; names the nearest one.
    """
    head, _, rest = path.partition(".")
    known = [f.name for f in dataclasses.fields(config)]
    if head not in known:
        raise ConfigError(f"unknown field '{path}'.{registry.nearest(head, known)}")
    new = set_field(getattr(config, head), rest, value) if rest else value
    return dataclasses.replace(config, **{head: new})
