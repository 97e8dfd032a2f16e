"""Config files: shipped ones by name, others by path, and their arguments."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from bert_variants import registry
from bert_variants.config.experiment import Experiment
from bert_variants.config.fields import ConfigError

CONFIGS = "bert_variants.configs"


def config_module(name_or_path: str) -> types.ModuleType:
    """The module of a config: ``bert`` (a shipped one) or ``path/to/file.py``.

    Raises:
        ConfigError: no such file or name, or a file without ``get_config``.
    """
    return module_of("config", CONFIGS, name_or_path)


def shipped_configs() -> list[str]:
    """Names of the configs that come with the package."""
    return shipped_in(CONFIGS)


def module_of(kind: str, package: str, name_or_path: str) -> types.ModuleType:
    """The module of a shipped file of ``package`` by its name, or of any file by its path.

    Args:
        kind: ``config`` or ``grid``: the file must have a function ``get_<kind>``.
        package: where the shipped ones are.
        name_or_path: ``bert``, or ``path/to/file.py``.

    Raises:
        ConfigError: no such file or name, or a file without the function.
    """
    path = Path(name_or_path)
    if path.suffix == ".py":
        if not path.is_file():
            raise ConfigError(f"{kind} file {name_or_path} does not exist.")
        spec = importlib.util.spec_from_file_location(f"{kind}_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    else:
        known = shipped_in(package)
        if name_or_path not in known:
            hint = registry.nearest(name_or_path, known)
            raise ConfigError(f"unknown {kind} '{name_or_path}'.{hint}")
        module = importlib.import_module(f"{package}.{name_or_path}")
    if not hasattr(module, f"get_{kind}"):
        raise ConfigError(f"{kind} {name_or_path} has no function get_{kind}().")
    return module


def shipped_in(package: str) -> list[str]:
    """Names of a package's files, but for those that begin with an underscore."""
    folder = Path(importlib.import_module(package).__path__[0])
    return sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith("_"))


def get_config(name_or_path: str, **arguments: Any) -> Experiment:
    """Call a config's ``get_config``, such as ``get_config("bert", size="tiny")``.

    Raises:
        ConfigError: as ``config_module``, or an argument or a value that this config does not take.
    """
    return call(config_module(name_or_path).get_config, name_or_path, arguments)


def call(function: Any, name: str, arguments: Mapping[str, Any]) -> Any:
    """Call the function of a config file, whose arguments are checked against its annotations.

    Raises:
        ConfigError: an argument that it does not take, or a value that is none of a Literal's.
    """
    known = list(inspect.signature(function).parameters)
    hints = typing.get_type_hints(function)
    for key, value in arguments.items():
        if key not in known:
            raise ConfigError(f"config '{name}' takes no '{key}'.{registry.nearest(key, known)}")
        chosen = key in hints and typing.get_origin(hints[key]) is Literal
        choices = typing.get_args(hints[key]) if chosen else ()
        if chosen and value not in choices:
            hint = registry.nearest(str(value), [str(choice) for choice in choices])
            raise ConfigError(f"config '{name}': {key} is {value!r}.{hint}")
    return function(**arguments)
