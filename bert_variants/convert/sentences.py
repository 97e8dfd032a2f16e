"""Sentence-BERT directories: an encoder, and how its states become one vector.

::

    modules.json           [{"idx": 0, "path": "", "type": "...models.Transformer"},
                            {"idx": 1, "path": "1_Pooling", "type": "...models.Pooling"}]
    1_Pooling/config.json  {"word_embedding_dimension": 768, "pooling_mode_mean_tokens": true}
    config.json, ...       the encoder, or in the folder that modules.json names

UKPLab/sentence-transformers:sentence_transformers/models/Pooling.py.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bert_variants.convert.errors import ConvertError, check
from bert_variants.convert.files import make_folder, write_file
from bert_variants.convert.json_files import Fields, parse
from bert_variants.convert.paths import plain

MODULES, POOLING, ENCODER = "modules.json", "1_Pooling", "sentence_bert_config.json"
VERSIONS = "config_sentence_transformers.json"
MOST_BYTES = 1 << 20
# their field -> our name; several that are true are concatenated, in this order
MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
}
UNKNOWN_MODES = ("pooling_mode_weightedmean_tokens", "pooling_mode_lasttoken")
_TYPES = {"Transformer": "encoder", "Pooling": "pooling"}


@dataclasses.dataclass(frozen=True)
class Sentences:
    """What a Sentence-BERT directory says beside its encoder.

    Attributes:
        encoder: the folder with the encoder.
        pooling: cls, max, mean, mean_sqrt_len; the vectors of several are concatenated.
        length: most tokens of a text, specials included; 0: as many as the encoder has positions.
        lowercase: whether text is lower-cased before it is tokenised.
    """

    encoder: Path
    pooling: tuple[str, ...]
    length: int = 0
    lowercase: bool = False


def is_one(folder: Path) -> bool:
    """Whether a folder is such a directory."""
    return (folder / MODULES).is_file()


def look(folder: Path) -> Sentences:
    """Read modules.json and what it names.

    Raises:
        ConvertError: modules that ours has not (a dense layer, a normalisation, a bag of words), a
            way of pooling that ours has not, folders that lead elsewhere.
    """
    found: dict[str, Path] = {}
    problems = []
    for number, module in enumerate(_modules(folder / MODULES)):
        kind = str(module["type"]).rpartition(".")[2]
        if kind not in _TYPES or _TYPES[kind] in found or (number == 0) != (kind == "Transformer"):
            problems.append(
                f"module {number} is {module['type']!r}: ours has an encoder and then a pooling, "
                "and nothing else."
            )
        elif module["path"] and plain(module["path"]) is not None:
            problems.append(f"module {number}: {module['path']!r}: {plain(module['path'])}.")
        else:
            found[_TYPES[kind]] = folder / module["path"]
    if not problems and "pooling" not in found:
        problems.append("there is no pooling.")
    check(f"{folder / MODULES} describes a model that cannot be read", problems)
    settings = _encoder_settings(found["encoder"])
    return Sentences(found["encoder"], _modes(found["pooling"] / "config.json"), *settings)


def _modules(path: Path) -> list[Mapping[str, Any]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConvertError(f"{path} cannot be read: {error.strerror}.") from None
    if len(data) > MOST_BYTES:
        raise ConvertError(f"{path} has {len(data):,} bytes, expected at most {MOST_BYTES:,}.")
    listed = parse(b'{"modules": ' + data + b"}", str(path))["modules"]
    fine = isinstance(listed, list) and all(
        isinstance(one, dict)
        and isinstance(one.get("path"), str)
        and isinstance(one.get("type"), str)
        for one in listed
    )
    if not fine:
        raise ConvertError(f"{path} is no list of modules with a path and a type each.")
    return listed


def _modes(path: Path) -> tuple[str, ...]:
    said = Fields.read(path)
    if said.has("pooling_mode"):  # of version 5: one name, or several with a comma
        listed = said.any("pooling_mode")
        names = listed.split(",") if isinstance(listed, str) else listed
        known = isinstance(names, list) and all(name in MODES.values() for name in names)
        if not known or not names:
            raise ConvertError(
                f"{path}: pooling_mode is {listed!r}, expected of {', '.join(MODES.values())}."
            )
        return tuple(mode for mode in MODES.values() if mode in names)
    unknown = [name for name in UNKNOWN_MODES if said.has(name) and said.boolean(name)]
    modes = tuple(mode for name, mode in MODES.items() if said.has(name) and said.boolean(name))
    problems = [f"{name} is true, which ours does not do." for name in unknown]
    if said.has("include_prompt") and not said.boolean("include_prompt"):
        problems.append("include_prompt is false: ours has no prompts.")
    if not modes and not problems:
        problems.append(f"none of {', '.join(MODES)} is true.")
    check(f"{path} describes a pooling that cannot be had", problems)
    return modes


def _encoder_settings(folder: Path) -> tuple[int, bool]:
    path = folder / ENCODER
    if not path.is_file():
        return 0, False
    said = Fields.read(path)
    length = said.integer("max_seq_length", least=1) if said.has("max_seq_length") else 0
    return length, said.has("do_lower_case") and said.boolean("do_lower_case")


def write(folder: Path, pooling: tuple[str, ...], width: int, length: int) -> None:
    """Write what makes a Sentence-BERT directory of an encoder's.

    Args:
        folder: where the encoder is written.
        pooling: ways of pooling; see ``Sentences``.
        width: of the encoder.
        length: most tokens of a text.

    Raises:
        ConvertError: no or an unknown way of pooling; files in the way.
    """
    unknown = [mode for mode in pooling if mode not in MODES.values()]
    if unknown or not pooling:
        raise ConvertError(f"pooling is {pooling!r}, expected of {', '.join(MODES.values())}.")
    base = "sentence_transformers.models"
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": f"{base}.Transformer"},
        {"idx": 1, "name": "1", "path": POOLING, "type": f"{base}.Pooling"},
    ]
    modes = {name: mode in pooling for name, mode in MODES.items()}
    modes |= dict.fromkeys(UNKNOWN_MODES, False) | {"include_prompt": True}
    make_folder(folder / POOLING)
    _write(folder / POOLING / "config.json", {"word_embedding_dimension": width, **modes})
    _write(folder / ENCODER, {"max_seq_length": length, "do_lower_case": False})
    _write(folder / VERSIONS, {"prompts": {}, "similarity_fn_name": "cosine"})
    _write(folder / MODULES, modules)


def _write(path: Path, value: Any) -> None:
    write_file(path, (json.dumps(value, indent=2) + "\n").encode())
