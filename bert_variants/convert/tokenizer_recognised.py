"""A tokenizer out of tokenizer.json alone: recognised as one of ours, or refused.

The file can describe many more tokenizers than ours. Everything in it that changes an id is looked
at; what ours do otherwise is named, all of it at once.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any

from bert_variants.convert import tokenizer_json as theirs
from bert_variants.convert.errors import ConvertError, check
from bert_variants.convert.layouts import Layout
from bert_variants.text.tokenizers.albert_text import CHANGES, Change
from bert_variants.text.tokenizers.byte_bpe import MERGES, VOCABULARY
from bert_variants.text.tokenizers.byte_bpe_files import write_vocabulary
from bert_variants.text.tokenizers.sentencepiece import MODEL, SCORES
from bert_variants.text.tokenizers.sentencepiece_parts import (
    CONTROL,
    NORMAL,
    UNKNOWN,
    Parts,
    model_of,
)

Json = Mapping[str, Any]
LARGEST_SCORE = 1e30  # of a piece; they are logarithms of probabilities
KINDS = {"WordPiece": "wordpiece", "BPE": "byte_bpe", "Unigram": "sentencepiece"}
_SPACES = (
    {"type": "Strip", "strip_left": False, "strip_right": True},
    {"type": "Strip", "strip_left": True, "strip_right": True},
    theirs.ENDS,
    theirs.ONE_BLANK,
    {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": theirs.BLANK},
)


def kind_of(fast: Json, where: str) -> str:
    """Our kind of the tokenizer of a tokenizer.json.

    Raises:
        ConvertError: its model is of no kind of ours.
    """
    model = _object(fast, "model")
    said = model["type"] if "type" in model else _type_by_fields(model)
    if said not in KINDS:
        raise ConvertError(f"{where}: model.type is {said!r}, expected one of {', '.join(KINDS)}.")
    return KINDS[said]


def _type_by_fields(model: Json) -> str:
    """Files of before 2021 do not say it."""
    vocab = model["vocab"] if "vocab" in model else None
    if isinstance(vocab, list):
        return "Unigram"
    return "BPE" if "merges" in model else "WordPiece"


def vocabulary(fast: Json, where: str) -> list[str]:
    """The tokens by id, without added ones that follow them.

    Raises:
        ConvertError: ids that do not count up from 0, or entries that are no tokens.
    """
    vocab = _object(fast, "model")["vocab"] if "vocab" in _object(fast, "model") else None
    if isinstance(vocab, list) and all(
        isinstance(row, list) and len(row) == 2 and isinstance(row[0], str) for row in vocab
    ):
        return [row[0] for row in vocab]
    if not isinstance(vocab, Mapping):
        raise ConvertError(f"{where}: model.vocab is no vocabulary.")
    by_id: dict[Any, str] = {}
    for token, index in vocab.items():
        if type(index) is not int or index in by_id:
            raise ConvertError(f"{where}: token {token!r} has the id {index!r}, as another has.")
        by_id[index] = token
    absent = [i for i in range(len(by_id)) if i not in by_id]
    if absent:
        raise ConvertError(f"{where}: no token has the id {absent[0]}; ids count up from 0.")
    return [by_id[i] for i in range(len(by_id))]


def wordpiece(fast: Json, unk: str, where: str) -> dict[str, Any]:
    """The options of our WordPiece.

    Raises:
        ConvertError: lists every setting that ours do otherwise.
    """
    before = _object(fast, "normalizer")
    expected = {
        "model.unk_token": unk,
        "model.continuing_subword_prefix": "##",
        "model.max_input_chars_per_word": theirs.LONGEST_WORD,
        "normalizer.type": "BertNormalizer",
        "normalizer.clean_text": True,
        "pre_tokenizer": {"type": "BertPreTokenizer"},
    }
    problems = _unlike(fast, expected)
    options = {}
    for ours, name, kinds in (
        ("lowercase", "lowercase", (bool,)),
        ("strip_accents", "strip_accents", (bool, type(None))),
        ("chinese_chars", "handle_chinese_chars", (bool,)),
    ):
        value = before[name] if name in before else None
        if not isinstance(value, kinds):
            problems.append(f"normalizer.{name} is {value!r}, expected true or false.")
        options[ours] = value
    check(f"{where} is no WordPiece of ours", problems)
    return options


def byte_bpe(fast: Json, where: str) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The two files of our byte-level BPE, and its options.

    Raises:
        ConvertError: lists every setting that ours do otherwise.
    """
    model, cut = _object(fast, "model"), _object(fast, "pre_tokenizer")
    problems = _unlike(fast, {"pre_tokenizer.type": "ByteLevel"})
    fixed: dict[str, tuple[Any, ...]] = {
        "dropout": (None, 0),
        "continuing_subword_prefix": (None, ""),
        "end_of_word_suffix": (None, ""),
        "byte_fallback": (False,),
        "ignore_merges": (False,),
    }
    problems += [
        f"model.{name} is {model[name]!r}, ours is {allowed[-1]!r}."
        for name, allowed in fixed.items()
        if name in model and model[name] not in allowed
    ]
    if "use_regex" in cut and cut["use_regex"] is not True:
        problems.append(f"pre_tokenizer.use_regex is {cut['use_regex']!r}, ours is True.")
    before = fast["normalizer"] if "normalizer" in fast else None
    if before not in (None, theirs.CLEAN):
        problems.append(f"normalizer is {_short(before)}, ours has none.")
    pairs = [
        tuple(one.split(" ")) if isinstance(one, str) else tuple(one)
        for one in _list(model, "merges")
    ]
    if any(len(pair) != 2 or not all(isinstance(p, str) for p in pair) for pair in pairs):
        problems.append("model.merges holds what is no pair of tokens.")
    check(f"{where} is no byte-level BPE of ours", problems)
    merges = "#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in pairs)
    files = {
        VOCABULARY: write_vocabulary(vocabulary(fast, where)),
        MERGES: merges.encode(),
    }
    prefix = "add_prefix_space" not in cut or cut["add_prefix_space"] is True
    return files, {"clean": before == theirs.CLEAN, "prefix_space": prefix}


def sentencepiece(
    fast: Json, specials: Sequence[str], where: str
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """A file of the same pieces and normaliser, and options of our SentencePiece.

    Raises:
        ConvertError: lists every setting that ours do otherwise.
    """
    model = _object(fast, "model")
    pieces = vocabulary(fast, where)
    scores = [row[1] for row in _list(model, "vocab")]
    unk = model["unk_id"] if "unk_id" in model else None
    problems = []
    if type(unk) is not int or not 0 <= unk < len(pieces):
        problems.append(f"model.unk_id is {unk!r}, expected the id of a piece.")
    numbers = [s for s in scores if isinstance(s, (int, float)) and not isinstance(s, bool)]
    if len(numbers) < len(scores) or any(abs(s) > LARGEST_SCORE for s in numbers):
        problems.append("model.vocab holds a score that is no number of 32 bits.")
    if "byte_fallback" in model and model["byte_fallback"] is not False:
        problems.append("model.byte_fallback is true, ours has none.")
    if len(scores) != len(pieces):
        problems.append("model.vocab is no list of pieces with scores.")
    normalization, charsmap, wrong = _normalization(fast)
    prefix, split_marks, more = _cuts(fast)
    # All white space is a blank then, as in our reading of a ".vocab", and in no ".model".
    as_scores = not charsmap and _splits_at_white_space(fast)
    if as_scores and not prefix:
        more.append("pre_tokenizer.prepend_scheme is 'never', ours is 'always'.")
    if as_scores and any("\n" in piece for piece in pieces):
        more.append("model.vocab holds a piece with a line end.")
    check(f"{where} is no SentencePiece of ours", [*problems, *wrong, *more])
    options = {"normalization": normalization, "split_marks": split_marks}
    if as_scores:
        rows = zip(pieces, scores, strict=True)
        return {SCORES: "".join(f"{piece}\t{score!r}\n" for piece, score in rows).encode()}, options
    kinds = [CONTROL if piece in specials else NORMAL for piece in pieces]
    kinds[unk] = UNKNOWN
    parts = Parts(tuple(pieces), tuple(map(float, scores)), tuple(kinds), charsmap, prefix)
    return {MODEL: model_of(parts)}, options


def _splits_at_white_space(fast: Json) -> bool:
    steps = _flat(fast["pre_tokenizer"] if "pre_tokenizer" in fast else None, "pretokenizers")
    return {"type": "WhitespaceSplit"} in steps


def _normalization(fast: Json) -> tuple[str, bytes, list[str]]:
    """Our name for what is done before the model, its own table, and what is unlike ours."""
    steps = _flat(fast["normalizer"] if "normalizer" in fast else None, "normalizers")
    found = {"quotes": False, "strip_accents": False, "lowercase": False}
    charsmap, problems = b"", []
    at = 0
    while at < len(steps):
        step, pair = steps[at], steps[at : at + 2]
        at += 1
        if pair == theirs.QUOTES:
            found["quotes"], at = True, at + 1
        elif len(pair) == 2 and pair[0] == theirs.NFKD and _drops_accents(pair[1]):
            found["strip_accents"], at = True, at + 1
        elif step == theirs.LOWER:
            found["lowercase"] = True
        elif step["type"] == "Precompiled" and not charsmap:
            charsmap, wrong = _charsmap(step)
            problems += wrong
        elif step not in (*_SPACES, theirs.BLANK_SIGN, theirs.CLEAN):
            problems.append(f"normalizer: {_short(step)} is nothing that ours do.")
    change = Change(**found)
    names = [name for name, known in CHANGES.items() if known == change]
    if not names:
        done = ", ".join(name for name, value in found.items() if value)
        problems.append(f"normalizer: ours do not do just this together: {done}.")
    return (names or ["model"])[0], charsmap, problems


def _drops_accents(step: Json) -> bool:
    """Whether it is the library's own step for that, or ours, whose characters grow in number from
    one version of Unicode to the next."""
    if step == {"type": "StripAccents"}:
        return True
    pattern = step["pattern"] if step["type"] == "Replace" and "pattern" in step else None
    said = pattern["Regex"] if isinstance(pattern, Mapping) and "Regex" in pattern else None
    return isinstance(said, str) and said.startswith(theirs.combining()[:200])


def _charsmap(step: Json) -> tuple[bytes, list[str]]:
    said = step["precompiled_charsmap"] if "precompiled_charsmap" in step else None
    try:
        return base64.b64decode(said or "", validate=True), []
    except (binascii.Error, TypeError, ValueError):
        return b"", ["normalizer.precompiled_charsmap is not base64."]


def _cuts(fast: Json) -> tuple[bool, bool, list[str]]:
    """Whether a blank is put first, whether marks are cut off, and what is unlike ours."""
    steps = _flat(fast["pre_tokenizer"] if "pre_tokenizer" in fast else None, "pretokenizers")
    split_marks = bool(steps) and steps[0] == theirs.MARKS_APART
    steps = steps[1:] if split_marks else steps
    steps = [s for s in steps if s not in (theirs.NO_BLANKS, {"type": "WhitespaceSplit"})]
    if len(steps) != 1 or steps[0]["type"] != "Metaspace":
        return True, split_marks, [f"pre_tokenizer is {_short(steps)}, ours is Metaspace."]
    last = steps[0]
    problems = []
    if "replacement" in last and last["replacement"] != theirs.BLANK:
        problems.append(f"pre_tokenizer.replacement is {last['replacement']!r}, ours is '▁'.")
    older = {True: "always", False: "never"}
    scheme = last["prepend_scheme"] if "prepend_scheme" in last else None
    if scheme is None and "add_prefix_space" in last:
        scheme = older[last["add_prefix_space"] is True]
    if scheme not in older.values():
        problems.append(f"pre_tokenizer.prepend_scheme is {scheme!r}, ours 'always' or 'never'.")
    return scheme == "always", split_marks, problems


def _flat(step: Any, inner: str) -> list[Json]:
    """The steps of a sequence within sequences, in order."""
    if step is None:
        return []
    if not isinstance(step, Mapping) or "type" not in step:
        return [{"type": "?", "is": step}]
    if step["type"] != "Sequence":
        return [step]
    found = step[inner] if inner in step and isinstance(step[inner], list) else []
    return [one for part in found for one in _flat(part, inner)]


def _unlike(fast: Json, expected: Mapping[str, Any]) -> list[str]:
    """Fields, by their dotted path, that are not what they are expected to be."""
    problems = []
    for path, value in expected.items():
        found: Any = fast
        for name in path.split("."):
            found = found[name] if isinstance(found, Mapping) and name in found else None
        if found != value:
            problems.append(f"{path} is {_short(found)}, ours is {value!r}.")
    return problems


def _object(fast: Json, name: str) -> Json:
    value = fast[name] if name in fast else None
    return value if isinstance(value, Mapping) else {}


def _list(values: Json, name: str) -> list[Any]:
    value = values[name] if name in values else None
    return value if isinstance(value, list) else []


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 120 else text[:117] + "..."


def layout_problems(fast: Json, around: Layout, specials: Mapping[str, str]) -> list[str]:
    """Where the rows of a tokenizer.json are other than a layout says.

    Args:
        fast: the file's content.
        around: the layout.
        specials: spelling of the special tokens.
    """
    steps = _flat(fast["post_processor"] if "post_processor" in fast else None, "processors")
    steps = [step for step in steps if step["type"] != "ByteLevel"]
    found: dict[str, Any] = {"single": [], "pair": []}
    if len(steps) == 1 and steps[0]["type"] == "TemplateProcessing":
        found = {name: _parts(_list(steps[0], name)) for name in found}
    elif len(steps) == 1 and steps[0]["type"] in _ROWS:
        found = {
            name: [(specials[part] if part in specials else part, 0) for part in parts]
            for name, parts in _ROWS[steps[0]["type"]].items()
        }
    problems = []
    for name, parts in (("single", around.single), ("pair", around.pair)):
        expected = [(specials[p] if p in specials else p, s) for p, s in parts]
        told = [p for p, _ in expected], [s for _, s in expected]
        rows = [p for p, _ in found[name]], [s for _, s in found[name]]
        if rows[0] != told[0] or (around.segments and rows[1] != told[1]):
            problems.append(
                f"{name}: {' '.join(rows[0])}, segments {rows[1]}; expected {' '.join(told[0])}, "
                f"segments {told[1]}."
            )
    return problems


# Row builders that have a name of their own. Segments are not told: all 0.
_ROWS = {
    "RobertaProcessing": {
        "single": ("cls", "A", "sep"),
        "pair": ("cls", "A", "sep", "sep", "B", "sep"),
    },
}


def _parts(template: Sequence[Any]) -> list[tuple[str, int]]:
    """Of a template: what stands there, with segments."""
    found = []
    for part in template:
        for one in part.values() if isinstance(part, Mapping) else []:
            named = isinstance(one, Mapping) and "id" in one and "type_id" in one
            found.append((str(one["id"]), one["type_id"]) if named else ("?", 0))
    return found
