"""Tokenizers in and out of a Hugging Face directory.

    tokenizer = read(folder)
    write(tokenizer, folder, family="bert", length=512)

What is read are the original vocabulary files (vocab.txt, vocab.json with merges.txt, spiece.model,
spm.model) with the settings of tokenizer_config.json and its companions; tokenizer.json only where
they are absent, or where the directory names no class but that of tokenizer.json. What is written
is the vocabulary, these settings, and a tokenizer.json that does what ours does.

Ids, offsets and rows are those of transformers, but for what ours do on purpose:

* Special tokens in raw text are text. In transformers, "[MASK]" in a text is the mask token
  (unless it is called with ``split_special_tokens=True``).
* SentencePiece runs in its own library, with the model's own normaliser. Control characters are
  dropped before it, "▁" in a text is a character, and offsets begin behind the blank before a word.
* ALBERT's and XLNet's text is made plain as their authors do: combining characters are dropped, and
  not all marks, which would be vowels in India; numbers are cut before a comma ("2010" and ",").
* DeBERTa v2's and v3's model keeps its table of characters. The class of transformers 5 leaves it
  out, so that full-width forms and ligatures stay, and composes accents itself.
* DeBERTa v1 gets rows as its authors build them, with one [SEP] between two texts.

What is written follows ours in all of that but the first: its tokenizer.json says it.
``tests/convert/test_tokenizers_oracle.py`` holds each of these to what it says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bert_variants.convert import tokenizer_recognised as recognised
from bert_variants.convert.errors import ConvertError, check
from bert_variants.convert.layouts import Layout, layout
from bert_variants.convert.tokenizer_folder import (
    ADDED,
    CLASSES,
    CONFIG,
    FAST,
    KINDS,
    SPECIALS_MAP,
    read_folder,
)
from bert_variants.convert.tokenizer_json import added_tokens, tokenizer_json
from bert_variants.convert.tokenizer_reading import (
    OURS,
    as_recorded,
    check_same,
    of_fast,
    of_original,
    special_tokens,
    standard,
)
from bert_variants.text.tokenizer import Tokenizer
from bert_variants.text.tokenizers import sentencepiece, settings

GENERIC = "PreTrainedTokenizerFast"
# Families whose mask token, written into a text, takes the blank before it.
_MASK_TAKES_BLANK = ("roberta", "deberta", "albert", "xlnet")


def read(folder: Path) -> Tokenizer:
    """The tokenizer of a Hugging Face directory.

    Args:
        folder: with the tokenizer's files, and a config.json where these do not say which class of
            tokenizer they belong to.

    Raises:
        ConvertError: no tokenizer there, one of no known class, settings that ours cannot have,
            files that disagree; lists all of it.
        TokenizerError: a vocabulary or model file that is damaged or incomplete.
    """
    found = read_folder(Path(folder))
    named = {name: found.file(name) for name in found.kind.files}
    whole = {name: data for name, data in named.items() if data is not None}
    if OURS in found.config:
        ours = as_recorded(found)
        if ours is not None:
            return ours
    if found.fast is not None and (found.generic or len(whole) < len(named)):
        return of_fast(found)
    if len(whole) < len(named):
        absent = sorted(set(named) - set(whole))
        raise ConvertError(f"{found.path} holds no {' and no '.join(absent)}, and no {FAST}.")
    tokenizer = of_original(found, whole)
    check_same(found, tokenizer)
    return tokenizer


def read_layout(folder: Path) -> Layout:
    """What stands around the texts of a row, as the directory's model is used to it.

    Raises:
        ConvertError: as ``read``; or tokenizer.json builds other rows than the family's.
    """
    found = read_folder(Path(folder))
    around = layout(found.family)
    if found.generic and found.fast is not None:
        problems = recognised.layout_problems(found.fast, around, found.specials)
        check(f"{found.path / FAST} builds other rows than {found.family}", problems)
    return around


def write(tokenizer: Tokenizer, folder: Path, *, family: str, length: int | None = None) -> None:
    """Write the tokenizer's files into a Hugging Face directory; ``read`` gives the same again.

    The class is the family's own where that does all that ours does, else the one that does what
    tokenizer.json says, ``PreTrainedTokenizerFast``.

    Args:
        tokenizer: of any of our kinds; the rows are the family's whatever its kind.
        folder: made if it is not there.
        family: the name that ``model_type`` has in a config.json; see ``layouts.FAMILIES``.
        length: most tokens of a row (``model_max_length``); None: not said.

    Raises:
        ConvertError: an unknown family, a tokenizer that tokenizer.json cannot describe, or a
            folder that holds files of another tokenizer.
    """
    around = layout(family)
    takes_blank = family in _MASK_TAKES_BLANK and tokenizer.kind != "wordpiece"
    fast = tokenizer_json(tokenizer, around, takes_blank)
    added = added_tokens(tokenizer, takes_blank)
    config = _config(tokenizer, family, around, length)
    config["added_tokens_decoder"] = {
        str(token["id"]): {k: v for k, v in token.items() if k != "id"} for token in added
    }
    specials = {f"{name}_token": spelled for name, spelled in special_tokens(tokenizer).items()}
    specials["mask_token"] = {
        k: v for k, v in _of_id(added, tokenizer.vocab.mask).items() if k not in ("id", "special")
    }
    files = dict(_vocabulary_files(tokenizer, family))
    files[FAST] = (json.dumps(fast, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
    files[CONFIG] = (json.dumps(config, ensure_ascii=False, indent=2) + "\n").encode()
    files[SPECIALS_MAP] = (json.dumps(specials, ensure_ascii=False, indent=2) + "\n").encode()
    folder.mkdir(parents=True, exist_ok=True)
    others = {ADDED, *(name for kind in KINDS.values() for name in kind.files)} - set(files)
    present = sorted(name for name in others if (folder / name).exists())
    if present:
        raise ConvertError(f"{folder} holds {', '.join(present)} of another tokenizer.")
    for name, data in files.items():
        (folder / name).write_bytes(data)


def _of_id(added: Sequence[Mapping[str, Any]], index: int) -> Mapping[str, Any]:
    return next(token for token in added if token["id"] == index)


def _vocabulary_files(tokenizer: Tokenizer, family: str) -> Mapping[str, bytes]:
    """Our files, named as the family's class names them."""
    files = {n: d for n, d in tokenizer.files().items() if n != settings.NAME}
    if family == "deberta-v2" and sentencepiece.MODEL in files:
        files["spm.model"] = files.pop(sentencepiece.MODEL)
    return files


def _class_for(tokenizer: Tokenizer, family: str, options: Mapping[str, Any]) -> str:
    """The class that does all that this tokenizer does."""
    own = KINDS[CLASSES[family]].ours
    if tokenizer.kind == "wordpiece" and own == "wordpiece":
        return CLASSES[family]
    if tokenizer.kind == "wordpiece" and layout(family) == layout("bert"):
        return "BertTokenizer"
    if tokenizer.kind == "byte_bpe" and family == "roberta" and not options["clean"]:
        return "RobertaTokenizer"
    return GENERIC


def _config(
    tokenizer: Tokenizer, family: str, around: Layout, length: int | None
) -> dict[str, Any]:
    """tokenizer_config.json, but for the added tokens."""
    options = settings.read(tokenizer.files())
    record = {name: value for name, value in options.items() if name != "files"}
    named = special_tokens(tokenizer)
    config: dict[str, Any] = {
        "tokenizer_class": _class_for(tokenizer, family, options),
        **{f"{name}_token": spelled for name, spelled in named.items()},
    }
    if tokenizer.kind == "byte_bpe":
        # Without a name these would be other tokens, which transformers then adds.
        config |= {"bos_token": named["cls"], "eos_token": named["sep"]}
    more = [tokenizer.tokens[i] for i in tokenizer.vocab.specials]
    config["additional_special_tokens"] = [t for t in more if t not in named.values()]
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    config["model_input_names"] = [i for i in inputs if around.segments or i != inputs[1]]
    config["padding_side"] = around.padding_side
    config["clean_up_tokenization_spaces"] = False
    if length is not None:
        config["model_max_length"] = length
    if tokenizer.kind == "byte_bpe":
        config["trim_offsets"] = True
    return config | standard(tokenizer.kind, options) | {OURS: record}
