"""A tokenizer that was saved before, of whatever kind: by a run, or by converting a model.

    saved(dir="runs/domain/tokenizer")
    saved(dir="runs/bert/tokenizer", more="words.txt")      the same with more tokens behind its own

``more`` is a file with a token on each line. The ids of the old tokens stay what they were, so that
a model's rows keep their meaning and only the new ones have to be learned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from bert_variants import registry
from bert_variants.registry import register
from bert_variants.text.tokenizer import Recipe, Tokenizer, TokenizerError
from bert_variants.text.tokenizers import settings
from bert_variants.text.tokenizers.vocabulary_file import lines, read_bytes
from bert_variants.text.tokenizers.wordpiece import VOCABULARY


class _SavedRecipe(Recipe):
    def __init__(self, folder: str, more: str):
        self._folder, self._more = folder, more

    @property
    def needs_text(self) -> bool:
        return False

    def build(self, texts: Iterable[str]) -> Tokenizer:
        folder = Path(self._folder).expanduser()
        names = settings.read({settings.NAME: read_bytes(str(folder / settings.NAME))})["files"]
        files = {name: read_bytes(str(folder / name)) for name in (settings.NAME, *names)}
        return self.restore(extended(files, self._more) if self._more else files)

    def restore(self, files: Mapping[str, bytes]) -> Tokenizer:
        kind = settings.read(files)["kind"]
        return registry.lookup("tokenizer", kind)().restore(files)


def extended(files: Mapping[str, bytes], more: str) -> dict[str, bytes]:
    """A WordPiece tokenizer's files with the tokens of another file behind its own.

    Raises:
        TokenizerError: of another kind; a token that is there already.
    """
    kind = settings.read(files)["kind"]
    if kind != "wordpiece":
        raise TokenizerError(
            f"a vocabulary of kind {kind!r} cannot be extended by tokens: its pieces are made by "
            "merges or scores. Only wordpiece can."
        )
    known = set(lines(files[VOCABULARY], VOCABULARY))
    new = lines(read_bytes(more), more)
    for number, token in enumerate(new, start=1):
        if token in known:
            raise TokenizerError(f"{more}, line {number}: {token!r} is in the vocabulary already.")
    return {**files, VOCABULARY: files[VOCABULARY] + "".join(t + "\n" for t in new).encode()}


@register("tokenizer", name="saved")
def saved(dir: str = "", more: str = "") -> Recipe:
    """The tokenizer in a folder, such as a run's ``tokenizer/``.

    Args:
        dir: the folder.
        more: a file of further tokens, one a line; empty: none.

    Raises:
        TokenizerError: from ``build``: no such folder, damaged files, a token that is there twice.
    """
    return _SavedRecipe(dir, more)
