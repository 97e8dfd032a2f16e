"""A tokenizer out of a directory's files, by the way that fits what is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bert_variants.convert import tokenizer_recognised as recognised
from bert_variants.convert.errors import ConvertError, check
from bert_variants.convert.tokenizer_folder import CONFIG, FAST, Folder
from bert_variants.text import tokenizers
from bert_variants.text.tokenizer import Tokenizer
from bert_variants.text.tokenizers import byte_bpe, sentencepiece, settings, wordpiece
from bert_variants.text.tokenizers.albert_text import CHANGES, Change
from bert_variants.text.tokenizers.byte_bpe_files import read_vocabulary, write_vocabulary
from bert_variants.text.tokenizers.sentencepiece_file import read_model
from bert_variants.text.tokenizers.vocabulary_file import lines

OURS = "bert_variants"  # key of tokenizer_config.json: our own settings, which say all of ours
_USUAL = {
    "wordpiece": wordpiece.USUAL,
    "byte_bpe": byte_bpe.USUAL,
    "sentencepiece": sentencepiece.USUAL,
}
# Our files by the names that they may have in a directory.
_FILES = {
    "wordpiece": {wordpiece.VOCABULARY: wordpiece.VOCABULARY},
    "byte_bpe": {name: name for name in (byte_bpe.VOCABULARY, byte_bpe.MERGES)},
    "sentencepiece": {
        sentencepiece.MODEL: sentencepiece.MODEL,
        "spm.model": sentencepiece.MODEL,
        sentencepiece.SCORES: sentencepiece.SCORES,
    },
}


def special_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """The spelling of each special token, by the name that it has in ``Vocab``."""
    v = tokenizer.vocab
    ids = {"unk": v.unk, "sep": v.sep, "pad": v.pad, "cls": v.cls, "mask": v.mask}
    return {name: tokenizer.tokens[i] for name, i in ids.items()}


def standard(kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Our options under the names that transformers has for them."""
    if kind == "wordpiece":
        return {
            "do_lower_case": options["lowercase"],
            "strip_accents": options["strip_accents"],
            "tokenize_chinese_chars": "chinese_chars" not in options or options["chinese_chars"],
        }
    if kind == "byte_bpe":
        return {"add_prefix_space": options["prefix_space"]}
    change = CHANGES[options["normalization"]]
    return {
        "do_lower_case": change.lowercase,
        "keep_accents": not change.strip_accents,
        "split_by_punct": "split_marks" in options and options["split_marks"],
    }


def as_recorded(found: Folder) -> Tokenizer | None:
    """The tokenizer that was written from ours; None if its vocabulary is not there any more.

    Raises:
        ConvertError: the settings beside ours were changed.
    """
    record = found.config[OURS]
    if not isinstance(record, Mapping) or "kind" not in record or record["kind"] not in _USUAL:
        raise ConvertError(f"{found.path / CONFIG}: {OURS} is {record!r}, expected our settings.")
    there = {name: found.file(name) for name in _FILES[record["kind"]]}
    files = {_FILES[record["kind"]][n]: data for n, data in there.items() if data is not None}
    if not files:
        return None
    plain = {name: value for name, value in record.items() if name not in ("kind", "files")}
    tokenizer = tokenizers.restore(settings.write(record["kind"], files, **plain))
    problems = [
        f"{name} is {found.config[name]!r}, {OURS} says {value!r}."
        for name, value in standard(record["kind"], plain).items()
        if name in found.config and found.config[name] != value
    ]
    spelled = special_tokens(tokenizer)
    problems += [
        f"{name}_token is {token!r}, {OURS} says {spelled[name]!r}."
        for name, token in found.specials.items()
        if token != spelled[name]
    ]
    check(f"{found.path / CONFIG} was changed and does not agree with itself", problems)
    check_same(found, tokenizer)
    return tokenizer


def of_original(found: Folder, data: Mapping[str, bytes]) -> Tokenizer:
    """From the files that the class names and the settings of tokenizer_config.json."""
    kind = found.kind.ours
    if kind == "wordpiece":
        tokens = lines(data["vocab.txt"], str(found.path / "vocab.txt"))
        options = {
            "lowercase": found.setting("do_lower_case"),
            "strip_accents": found.setting("strip_accents"),
            "chinese_chars": found.setting("tokenize_chinese_chars"),
        }
        return _restored(found, kind, tokens, {}, options)
    if kind == "byte_bpe":
        name = byte_bpe.VOCABULARY
        tokens = read_vocabulary(data[name], str(found.path / name))
        options = {"clean": False, "prefix_space": found.setting("add_prefix_space")}
        return _restored(found, kind, tokens, data, options)
    ((name, model),) = data.items()
    pieces = read_model(model, str(found.path / name)).pieces
    change = Change(lowercase=found.setting("do_lower_case"))
    options = {}
    if "keep_accents" in found.kind.usual:
        change = Change(True, not found.setting("keep_accents"), change.lowercase)
    else:
        options["split_marks"] = found.setting("split_by_punct")
    options["normalization"] = next(n for n, known in CHANGES.items() if known == change)
    return _restored(found, kind, pieces, {sentencepiece.MODEL: model}, options)


def of_fast(found: Folder) -> Tokenizer:
    """From tokenizer.json alone.

    Raises:
        ConvertError: it describes nothing of ours, or not what tokenizer_config.json says.
    """
    fast, where = found.fast, str(found.path / FAST)
    kind = recognised.kind_of(fast, where)
    if not found.generic and kind != found.kind.ours:
        raise ConvertError(f"{where} is a {kind}, but the class of the tokenizer is {found.name}.")
    tokens = recognised.vocabulary(fast, where)
    files: dict[str, bytes] = {}
    if kind == "wordpiece":
        options = recognised.wordpiece(fast, found.specials["unk"], where)
    elif kind == "byte_bpe":
        files, options = recognised.byte_bpe(fast, where)
    else:
        controls = [token.spelling for token in found.added.values() if token.special]
        controls += [*found.specials.values(), *found.more]
        files, options = recognised.sentencepiece(fast, controls, where)
    # A class of its own follows tokenizer_config.json, whatever tokenizer.json says.
    said = {} if found.generic else standard(kind, options)
    problems = [
        f"{name} is {found.config[name]!r} in {CONFIG}, in {FAST} it is {value!r}."
        for name, value in said.items()
        if name in found.kind.usual and name in found.config and found.config[name] != value
    ]
    check(f"the tokenizer files of {found.path} disagree", problems)
    return _restored(found, kind, tokens, files, options)


def check_same(found: Folder, tokenizer: Tokenizer) -> None:
    """Refuse a tokenizer.json that has other tokens than the files that were read.

    Raises:
        ConvertError: names the first that differ.
    """
    if found.fast is None:
        return
    where = str(found.path / FAST)
    kind = recognised.kind_of(found.fast, where)
    if kind != tokenizer.kind:
        raise ConvertError(f"{where} is a {kind}, beside it are files of a {tokenizer.kind}.")
    theirs, ours = recognised.vocabulary(found.fast, where), tokenizer.tokens
    problems = [
        f"id {i} is {b!r}, in {FAST} it is {a!r}."
        for i, (a, b) in enumerate(zip(theirs, ours, strict=False))
        if a != b
    ]
    late = {token.spelling for token in found.added.values()} | set(found.specials.values())
    if len(theirs) > len(ours) or not late.issuperset(ours[len(theirs) :]):
        problems.append(f"there are {len(ours)} tokens, in {FAST} {len(theirs)}.")
    check(f"the tokenizer files of {found.path} disagree; remove what is out of date", problems)


def _restored(
    found: Folder,
    kind: str,
    tokens: Sequence[str],
    files: Mapping[str, bytes],
    options: Mapping[str, Any],
) -> Tokenizer:
    """Our tokenizer over ``tokens``, with the special and the added tokens of the directory."""
    appended, reserved = _completed(found, kind, tokens)
    named = {name: found.specials[name] for name in ("pad", "unk", "cls", "sep", "mask")}
    more: dict[str, Any] = {"specials": named, "reserved": reserved}
    whole = (*tokens, *appended)
    if kind == "wordpiece":
        files = {wordpiece.VOCABULARY: "".join(token + "\n" for token in whole).encode()}
    elif kind == "byte_bpe":
        files = {**files, byte_bpe.VOCABULARY: write_vocabulary(whole)}
    else:
        more |= {"appended": appended, "specials": {} if _expected(named, whole) else named}
    usual = _USUAL[kind]
    more |= {name: value for name, value in options.items() if name in usual}
    plain = {name: value for name, value in options.items() if name not in usual}
    changed = settings.unusual(usual, **more)
    return tokenizers.restore(settings.write(kind, files, **plain, **changed))


def _expected(named: Mapping[str, str], tokens: Sequence[str]) -> bool:
    """Whether our SentencePiece finds these special tokens by itself."""
    known = frozenset(tokens)
    both = {name: (f"[{name.upper()}]", f"<{name}>") for name in named}
    return all(
        spelled == next((one for one in both[name] if one in known), None)
        for name, spelled in named.items()
    )


def _completed(found: Folder, kind: str, tokens: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tokens that follow the vocabulary, and those that stand for no text beside the five.

    Raises:
        ConvertError: added tokens that do not fit the vocabulary, or that are found in text.
    """
    appended: list[str] = []
    problems = []
    for index, token in sorted(found.added.items()):
        # What sentencepiece itself finds in text first it says itself.
        if not token.special and (kind != "sentencepiece" or index >= len(tokens)):
            problems.append(
                f"{token.spelling!r} (id {index}) is found in raw text before all else; ours look "
                "for no such tokens."
            )
        elif index < len(tokens):
            if tokens[index] != token.spelling:
                problems.append(f"id {index} is {token.spelling!r} and {tokens[index]!r}.")
        elif index != len(tokens) + len(appended):
            problems.append(
                f"{token.spelling!r} has the id {index}, expected {len(tokens) + len(appended)}."
            )
        else:
            appended.append(token.spelling)
    known = {*tokens, *appended}
    absent = [t for t in dict.fromkeys(found.specials.values()) if t not in known]
    if len(absent) == 1:  # its id can only be the next one
        appended += absent
    elif absent:
        problems.append(f"the special tokens {' '.join(absent)} have no ids.")
    problems += [f"the special token {t} has no id." for t in found.more if t not in known]
    check(f"the added tokens of {found.path} cannot be had", problems)
    special = [token.spelling for _, token in sorted(found.added.items()) if token.special]
    named = set(found.specials.values())
    return appended, [t for t in dict.fromkeys([*special, *found.more]) if t not in named]
