"""What a Hugging Face directory says of its tokenizer, whichever of its files says it.

Special tokens stand in up to four files, added ones in up to three; older directories have some,
newer ones others. They are put together here, and where two of them disagree it is an error.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bert_variants.convert.errors import ConvertError, check
from bert_variants.convert.json_files import (
    MOST_BYTES_OF_A_TOKENIZER,
    MOST_VALUES_OF_A_TOKENIZER,
    read_json,
)
from bert_variants.convert.layouts import FAMILIES
from bert_variants.convert.paths import inside
from bert_variants.registry import nearest
from bert_variants.text.tokenizers.vocabulary_file import BERT_SPECIALS

CONFIG, SPECIALS_MAP, ADDED = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
FAST, MODEL_CONFIG = "tokenizer.json", "config.json"
MOST_BYTES_OF_A_VOCABULARY = 64 << 20
_LOG = logging.getLogger(__name__)

_ROBERTA = {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"}
_ALBERT = {"pad": "<pad>", "unk": "<unk>", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
_XLNET = {"pad": "<pad>", "unk": "<unk>", "cls": "<cls>", "sep": "<sep>", "mask": "<mask>"}


@dataclasses.dataclass(frozen=True)
class Kind:
    """A class of transformers' tokenizers.

    Attributes:
        ours: our kind of tokenizer.
        files: of its vocabulary, as the class names them.
        specials: that it has where no file names any.
        usual: settings of tokenizer_config.json that we know, and what the class does where the
            file does not say it.
    """

    ours: str
    files: tuple[str, ...]
    specials: Mapping[str, str]
    usual: Mapping[str, Any]


_WORDPIECE = Kind(
    "wordpiece",
    ("vocab.txt",),
    BERT_SPECIALS,
    {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True},
)
_BYTE_BPE = Kind("byte_bpe", ("vocab.json", "merges.txt"), _ROBERTA, {"add_prefix_space": False})
_PIECES = {"keep_accents": False, "do_lower_case": True}
KINDS = {
    "BertTokenizer": _WORDPIECE,
    "DistilBertTokenizer": _WORDPIECE,
    "ElectraTokenizer": _WORDPIECE,
    "ErnieTokenizer": _WORDPIECE,
    "RobertaTokenizer": _BYTE_BPE,
    "DebertaTokenizer": dataclasses.replace(_BYTE_BPE, specials=BERT_SPECIALS),
    "AlbertTokenizer": Kind("sentencepiece", ("spiece.model",), _ALBERT, _PIECES),
    "XLNetTokenizer": Kind(
        "sentencepiece", ("spiece.model",), _XLNET, {**_PIECES, "do_lower_case": False}
    ),
    "DebertaV2Tokenizer": Kind(
        "sentencepiece",
        ("spm.model",),
        BERT_SPECIALS,
        {"do_lower_case": False, "split_by_punct": False},
    ),
}
GENERIC = ("PreTrainedTokenizer", "TokenizersBackend")
# The class of each family.
CLASSES = {
    **dict.fromkeys(("bert", "electra", "ernie"), "BertTokenizer"),
    "distilbert": "DistilBertTokenizer",
    "roberta": "RobertaTokenizer",
    "deberta": "DebertaTokenizer",
    "deberta-v2": "DebertaV2Tokenizer",
    "albert": "AlbertTokenizer",
    "xlnet": "XLNetTokenizer",
}
# Settings that must be so, because ours do nothing else.
_FIXED: dict[str, tuple[Any, ...]] = {
    "do_basic_tokenize": (True,),
    "never_split": (None, []),
    "wordpieces_prefix": ("##",),
    "vocab_type": ("spm", "gpt2"),
}


@dataclasses.dataclass(frozen=True)
class Added:
    """A token that is found in raw text before anything else, by its spelling."""

    spelling: str
    special: bool


@dataclasses.dataclass(frozen=True)
class Folder:
    """The settings of a directory's tokenizer, its vocabulary not yet read.

    Attributes:
        path: the directory.
        family: as ``layouts.FAMILIES`` has them.
        name: of the class.
        kind: what the class is.
        generic: whether the directory names no class but that of tokenizer.json.
        config: of tokenizer_config.json; empty if there is none.
        fast: of tokenizer.json; None if there is none.
        specials: spelling of the five special tokens.
        more: spelling of further special tokens.
        added: id -> token that is found in raw text.
    """

    path: Path
    family: str
    name: str
    kind: Kind
    generic: bool
    config: Mapping[str, Any]
    fast: Mapping[str, Any] | None
    specials: Mapping[str, str]
    more: tuple[str, ...]
    added: Mapping[int, Added]

    def setting(self, name: str) -> Any:
        """A setting of tokenizer_config.json, or what the class does where it is not there.

        Raises:
            ConvertError: a value of another kind.
        """
        usual = self.kind.usual[name]
        if name not in self.config:
            _LOG.info("%s does not say %s: %r, as %s does.", self.path, name, usual, self.name)
            return usual
        value = self.config[name]
        if not (isinstance(value, bool) or value is usual):
            where = self.path / CONFIG
            raise ConvertError(f"{where}: {name} is {value!r}, expected true or false.")
        return value

    def file(self, name: str) -> bytes | None:
        """The bytes of a vocabulary file, or None if it is not there."""
        if not (self.path / name).exists():
            return None
        path = inside(self.path, name)
        size = path.stat().st_size
        if size > MOST_BYTES_OF_A_VOCABULARY:
            raise ConvertError(
                f"{path} has {size:,} bytes, expected at most {MOST_BYTES_OF_A_VOCABULARY:,}."
            )
        return path.read_bytes()


def read_folder(path: Path) -> Folder:
    """The settings of a directory's tokenizer.

    Raises:
        ConvertError: no tokenizer is there, it is of no known class, or lists what cannot be had.
    """
    if not path.is_dir():
        raise ConvertError(f"there is no directory {path}.")
    config = _json(path, CONFIG) or {}
    fast = _json(path, FAST)
    family, name, generic = _class_of(path, config)
    kind = KINDS[name]
    if fast is None and not any((path / file).exists() for file in kind.files):
        raise ConvertError(
            f"{path} holds no vocabulary: neither {FAST} nor {' and '.join(kind.files)}."
        )
    problems = [
        f"{field} is {config[field]!r}, ours are {allowed[0]!r} only."
        for field, allowed in _FIXED.items()
        if field in config and config[field] not in allowed
    ]
    specials, more, wrong = _specials(path, config, kind)
    added, twice = _added(path, config, fast, {*specials.values(), *more})
    check(f"the tokenizer of {path} cannot be read", [*problems, *wrong, *twice])
    return Folder(
        path, family, name, kind, generic, config, fast, specials, tuple(more), dict(added)
    )


def _json(path: Path, name: str) -> dict[str, Any] | None:
    if not (path / name).exists():
        return None
    file = inside(path, name)
    if name != FAST:
        return read_json(file)
    return read_json(
        file, most_bytes=MOST_BYTES_OF_A_TOKENIZER, most_values=MOST_VALUES_OF_A_TOKENIZER
    )


def _class_of(path: Path, config: Mapping[str, Any]) -> tuple[str, str, bool]:
    """Family, class of tokenizer, and whether the class is only that of tokenizer.json."""
    model = _json(path, MODEL_CONFIG) or {}
    family = model["model_type"] if "model_type" in model else None
    said = config["tokenizer_class"] if "tokenizer_class" in config else None
    if said is None and "tokenizer_class" in model:
        said = model["tokenizer_class"]
    if family is not None and family not in FAMILIES:
        hint = nearest(str(family), list(FAMILIES))
        raise ConvertError(f"{path / MODEL_CONFIG}: model_type is {family!r}.{hint}")
    if said is None and family is None:
        raise ConvertError(
            f"{path} does not say what its tokenizer is: {MODEL_CONFIG} has no model_type and "
            f"{CONFIG} no tokenizer_class. Known: {', '.join(KINDS)}."
        )
    name = CLASSES[family] if said is None else str(said).removesuffix("Fast")
    generic = name in GENERIC
    if generic and family is None:
        raise ConvertError(
            f"{path / CONFIG}: tokenizer_class is {said!r}, which says nothing of special tokens; "
            f"{MODEL_CONFIG} with a model_type is needed beside it."
        )
    name = CLASSES[family] if generic else name
    if name not in KINDS:
        raise ConvertError(
            f"{path / CONFIG}: tokenizer_class is {said!r}.{nearest(name, list(KINDS))}"
        )
    families = {cls: fam for fam, cls in reversed(CLASSES.items())}
    families |= {"ElectraTokenizer": "electra", "ErnieTokenizer": "ernie"}
    return family or families[name], name, generic


def _spelling(value: Any) -> str | None:
    """Of a token that a file gives as text or as an object."""
    if isinstance(value, Mapping) and "content" in value:
        value = value["content"]
    return value if isinstance(value, str) else None


def _specials(
    path: Path, config: Mapping[str, Any], kind: Kind
) -> tuple[dict[str, str], list[str], list[str]]:
    """The five special tokens, further ones, and what is wrong with them."""
    named = {CONFIG: config, SPECIALS_MAP: _json(path, SPECIALS_MAP) or {}}
    specials: dict[str, str] = {}
    problems: list[str] = []
    for field, usual in kind.specials.items():
        key = f"{field}_token"
        said = {file: values[key] for file, values in named.items() if key in values}
        said = {file: value for file, value in said.items() if value is not None}
        spelled = {_spelling(value) for value in said.values()}
        if None in spelled:
            problems.append(f"{key} is {said!r}, expected a token.")
        elif len(spelled) > 1:
            problems.append(f"{key} is {said!r}: the files disagree.")
        specials[field] = next(iter(spelled), None) or usual
    more: list[str] = []
    for file, values in named.items():
        for key in ("additional_special_tokens", "extra_special_tokens"):
            tokens = values[key] if key in values else None
            tokens = [] if tokens is None else tokens
            several = list(tokens.values()) if isinstance(tokens, dict) else tokens
            if not isinstance(several, list) or None in map(_spelling, several):
                problems.append(f"{file}: {key} is {tokens!r}, expected tokens.")
                continue
            more += [s for s in map(_spelling, several) if s and s not in more]
        for key in ("bos_token", "eos_token"):
            spelled_so = _spelling(values[key]) if key in values else None
            if spelled_so and spelled_so not in more:
                more.append(spelled_so)
    return specials, [m for m in more if m not in specials.values()], problems


def _added(
    path: Path, config: Mapping[str, Any], fast: Mapping[str, Any] | None, special: set[str]
) -> tuple[dict[int, Added], list[str]]:
    """Added tokens by id, and where the files disagree."""
    said: list[tuple[str, Any, Any, Any]] = []
    older = _json(path, ADDED) or {}
    said += [(ADDED, index, token, token in special) for token, index in older.items()]
    decoder = config["added_tokens_decoder"] if "added_tokens_decoder" in config else {}
    if isinstance(decoder, Mapping):
        said += [(CONFIG, _number(i), _spelling(t), _special(t)) for i, t in decoder.items()]
    listed = fast["added_tokens"] if fast is not None and "added_tokens" in fast else []
    for token in listed if isinstance(listed, Sequence) else []:
        index = token["id"] if isinstance(token, Mapping) and "id" in token else None
        said.append((FAST, index, _spelling(token), _special(token)))
    added: dict[int, Added] = {}
    problems = []
    for file, index, spelling, is_special in said:
        if type(index) is not int or index < 0 or not isinstance(spelling, str):
            problems.append(f"{file}: the added token {spelling!r} has the id {index!r}.")
            continue
        token = Added(spelling, bool(is_special) or spelling in special)
        if index in added and added[index] != token:
            problems.append(f"{file}: id {index} is {token}, elsewhere {added[index]}.")
        added[index] = token
    return added, problems


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _special(token: Any) -> bool:
    return isinstance(token, Mapping) and "special" in token and token["special"] is True
