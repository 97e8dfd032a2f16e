"""The original TensorFlow checkpoints of BERT, ALBERT, ELECTRA and XLNet, read and written.

::

    bert_model.ckpt.index, bert_model.ckpt.data-00000-of-00001     the variables
    bert_config.json                                               the sizes (tensorflow_forms.py)
    vocab.txt, or 30k-clean.model, or spiece.model                 the vocabulary

Which of the four a checkpoint is, its variables say. Whether a vocabulary is lower-cased stands in
no file of the published ones: it is if none of its tokens has a capital letter.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bert_variants import registry
from bert_variants.convert import tensorflow_forms
from bert_variants.convert.bundle import INDEX, find_bundle, read_bundle, write_bundle
from bert_variants.convert.directory import Model, rows_of
from bert_variants.convert.errors import ConvertError, check
from bert_variants.convert.family import resolved, shapes_of
from bert_variants.convert.fields import Settings
from bert_variants.convert.files import write_file
from bert_variants.convert.json_files import read_json
from bert_variants.convert.matching import export, match
from bert_variants.convert.rules import Constant, Table
from bert_variants.convert.tensorflow_forms import Form
from bert_variants.convert.tensors import Stored, Tensors
from bert_variants.loaded import Loaded
from bert_variants.registry import Call
from bert_variants.text.tokenizer import Tokenizer
from bert_variants.text.tokenizers import settings as saved_settings
from bert_variants.text.tokenizers import vocabulary_file
from bert_variants.text.tokenizers.sentencepiece import MODEL
from bert_variants.train import leaves

STEP = "global_step"
VOCABULARIES, PIECES = "vocab*.txt", "*.model"


def is_one(path: Path) -> bool:
    """Whether a path is a checkpoint's prefix or one of its files, or a folder that holds one."""
    if path.is_dir():
        return any(path.glob(f"*{INDEX}"))
    try:
        find_bundle(path)
    except ConvertError:
        return False
    return True


def look(path: Path) -> tuple[Model, Tokenizer]:
    """A checkpoint and the tokenizer beside it. Of the variables the index alone is read.

    Args:
        path: ``DIR/bert_model.ckpt``, one of its files, or DIR where it is the only one.

    Raises:
        ConvertError: no checkpoint of one of the four; lists all variables that are missing,
            unexpected, or of another shape or type.
        TokenizerError: a vocabulary that is damaged.
    """
    prefix = find_bundle(path)
    found = read_bundle(prefix)
    form = tensorflow_forms.of_tensors(found)
    if form is None:
        raise ConvertError(
            f"{prefix} is no checkpoint of BERT, ALBERT, ELECTRA or XLNet: no variable of it is "
            f"called as theirs are. It begins with {', '.join(sorted(found)[:3])}."
        )
    settings = _settings(prefix, form)
    experiment = form.family.experiment_of(settings, found)
    rows = _rows(prefix, found)
    call = resolved(registry.lookup("model", experiment.model))
    plan = match(table_of(form, call), shapes_of(experiment, rows), found, str(prefix))
    model = Model(
        where=prefix.parent,
        model_type=form.family.model_type,
        experiment=experiment,
        vocab_size=rows,
        step=_step(found),
        arrays=plan.arrays,
        left=plan.left,
    )
    return model, tokenizer(prefix.parent, form, _lowercase(settings))


def _lowercase(settings: Settings) -> bool | None:
    """What ELECTRA's settings say of the vocabulary; the others' say nothing."""
    lower = settings.said_or("do_lower_case", None)
    if lower is not None and not isinstance(lower, bool):
        raise ConvertError(f"{settings.where}: do_lower_case is {lower!r}, expected true or false.")
    return lower


def _settings(prefix: Path, form: Form) -> Settings:
    path = prefix.parent / form.settings_file
    if path.is_file():
        return Settings(read_json(path), str(path))
    if form.needs_settings:
        raise ConvertError(
            f"{path} is not there. A checkpoint of {form.family.model_type} does not say how many "
            "heads it has: put the file beside it."
        )
    return Settings({}, str(prefix))


def _rows(prefix: Path, found: Tensors) -> int:
    """The rows of the table of words."""
    for name, stored in found.items():
        if name.endswith(("embeddings/word_embeddings", "word_embedding/lookup_table")):
            return stored.shape[0] if stored.shape else 0
    raise ConvertError(f"{prefix} has no table of words.")


def _step(found: Tensors) -> int:
    """How many steps it was trained for; 0 where it does not say it."""
    if STEP not in found or found[STEP].shape or not found[STEP].dtype.startswith("int"):
        return 0
    return max(0, int(found[STEP].load()))


def table_of(form: Form, call: Call) -> Table:
    """The rules of a model, with a table of one segment where ours has none."""
    table = form.family.table(call)
    if "segments" not in call.entry.parameters or call.argument("segments"):
        return table
    narrow = "embedding" if "embedding" in call.entry.parameters else "width"
    one = Constant(
        "bert/embeddings/token_type_embeddings", (1, call.argument(narrow)), "Take segments=1."
    )
    return Table(table.rules, table.ignored, (one,))


def tokenizer(folder: Path, form: Form, lowercase: bool | None = None) -> Tokenizer:
    """The tokenizer beside a checkpoint.

    Args:
        folder: of the checkpoint. Where this project wrote it, the tokenizer is as it was.
        form: of the checkpoint.
        lowercase: whether a WordPiece vocabulary is lower-cased; None: as its tokens are.

    Raises:
        ConvertError: no vocabulary there, or several.
        TokenizerError: one that is damaged.
    """
    if (folder / saved_settings.NAME).is_file():
        return _tokenizer("saved", dir=str(folder))
    words = sorted(folder.glob(VOCABULARIES))
    there = words or (sorted(folder.glob(PIECES)) if form.normalization else [])
    if len(there) > 1:
        named = ", ".join(path.name for path in there)
        raise ConvertError(f"{folder} holds several vocabularies: {named}. Leave one.")
    if not there:
        wanted = "vocab.txt or a SentencePiece model" if form.normalization else "vocab.txt"
        raise ConvertError(f"{folder} holds no vocabulary: put {wanted} beside the checkpoint.")
    file = str(there[0])
    if not words:
        return _tokenizer("sentencepiece", file=file, normalization=form.normalization)
    lower = has_no_capitals(there[0]) if lowercase is None else lowercase
    return _tokenizer("wordpiece", file=file, lowercase=lower)


def _tokenizer(name: str, **arguments: Any) -> Tokenizer:
    return registry.lookup("tokenizer", registry.write(name, arguments))().build([])


def has_no_capitals(path: Path) -> bool:
    """Whether no token of a vocabulary has a capital letter.

    Names in brackets do not count: "[PAD]", and "<S>" of the Chinese vocabulary.
    """
    tokens = vocabulary_file.lines(vocabulary_file.read_bytes(str(path)), path.name)
    named = re.compile(r"\[.*\]|<.*>", re.DOTALL)
    return not any(re.search("[A-Z]", token) for token in tokens if not named.fullmatch(token))


# ------------------------------------------------------------- writing


def write(made: Loaded, folder: Path) -> tuple[str, ...]:
    """Write a model as the original code reads it: variables, settings and vocabulary.

    Args:
        made: the model.
        folder: is made if it is not there.

    Returns:
        What is to be told.

    Raises:
        ConvertError: a model or a tokenizer that the original code has not; files in the way.
    """
    params, _ = leaves.flatten(made.params)
    call = resolved(registry.lookup("model", made.config.model))
    form = _form(call)
    vocabulary = _vocabulary(form, made.tokenizer)
    shapes = {path: tuple(array.shape) for path, array in params.items()}
    rows = rows_of(shapes)
    vocab = dataclasses.replace(made.tokenizer.vocab, size=rows)
    said = tensorflow_forms.settings_of(form, call, vocab)
    write_bundle(folder / form.checkpoint, variables(form, call, params, made.step))
    write_file(folder / form.settings_file, (json.dumps(said, indent=2) + "\n").encode())
    for name, data in vocabulary.items():
        write_file(folder / name, data)
    return (f"{form.checkpoint} of {form.family.model_type}, with {form.settings_file}",)


def _form(call: Call) -> Form:
    form = tensorflow_forms.of_model(call)
    if form is None:
        known = ", ".join(sorted(one.family.model for one in tensorflow_forms.FORMS))
        raise ConvertError(f"model '{call.name}' has no TensorFlow code of its own. Have: {known}.")
    return form


def variables(
    form: Form, call: Call, params: Mapping[str, Any], step: int = 0
) -> dict[str, Stored]:
    """The variables of a model, by name, and the step.

    Raises:
        ConvertError: parameters that the original code has not; lists them all.
    """
    made = export(table_of(form, call), params)
    number = np.int64(step)
    made[STEP] = Stored(STEP, (), "int64", "our record", lambda: np.asarray(number))
    return made


def _vocabulary(form: Form, tokenizer: Tokenizer) -> Mapping[str, bytes]:
    """The files of a tokenizer: the vocabulary, and how this project finds its settings again."""
    kind, name = tokenizer.kind, form.family.model_type
    pieces = form.normalization and kind == "sentencepiece" and MODEL in tokenizer.files()
    words = kind == "wordpiece" and name != "xlnet"
    wrong = [] if pieces or words else [f"the tokenizer is {kind}, which {name}'s code has not."]
    check("this model cannot be written as a TensorFlow checkpoint", wrong)
    return tokenizer.files()
