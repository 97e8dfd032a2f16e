"""Experiments as plain values, and back: what a checkpoint and a run directory store."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping
from typing import Any, Literal

from bert_variants import registry
from bert_variants.config.experiment import Experiment
from bert_variants.config.fields import ConfigError


def to_dict(config: Any) -> dict[str, Any]:
    """Nested plain values, ready for JSON."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(values: Mapping[str, Any], cls: type = Experiment, path: str = "") -> Any:
    """The inverse of ``to_dict``, strict.

    Raises:
        ConfigError: an unknown key (names the nearest), or a value of the wrong kind.
    """
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]
    for key in values:
        if key not in known:
            raise ConfigError(f"unknown field '{path}{key}'.{registry.nearest(key, known)}")
    built = {k: _from_value(v, hints[k], f"{path}{k}") for k, v in values.items()}
    return cls(**built)


def _from_value(value: Any, hint: Any, path: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path} is {value!r}, expected an object.")
        return from_dict(value, hint, path + ".")
    origin = typing.get_origin(hint)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{path} is {value!r}, expected a list.")
        inner = typing.get_args(hint)[0]
        return tuple(_from_value(v, inner, f"{path}[{i}]") for i, v in enumerate(value))
    if origin is Literal:
        if value not in typing.get_args(hint):
            raise ConfigError(f"{path} is {value!r}, expected one of {typing.get_args(hint)}.")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{path} is {value!r}, expected {hint.__name__}.")
    return value


def differences(old: Any, new: Any) -> dict[str, tuple[Any, Any]]:
    """Dotted path -> (old, new) for every leaf that differs."""
    flat_old, flat_new = _flat(to_dict(old)), _flat(to_dict(new))
    return {
        k: (flat_old.get(k), flat_new.get(k))
        for k in sorted({*flat_old, *flat_new})
        if flat_old.get(k) != flat_new.get(k)
    }


def _flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(
            _flat(value, f"{path}{key}.") if isinstance(value, Mapping) else {path + key: value}
        )
    return flat
