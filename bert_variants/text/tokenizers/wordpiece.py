"""WordPiece, BERT's tokenizer: load a published ``vocab.txt`` or train a vocabulary.

    wordpiece(size=8192)                                     trains, lower-case
    wordpiece(file="bert_base_cased_vocab.txt", lowercase=False)

Ids are those of google-research/bert:tokenization.py (BasicTokenizer, then greedy longest match),
computed by the Hugging Face ``tokenizers`` library, which also gives offsets and words. Nothing in
the text is ever read as a special token: "[MASK]" is a bracket, a word and a bracket.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bert_variants.registry import register
from bert_variants.text.tokenizer import Encoded, Recipe, Tokenizer, TokenizerError
from bert_variants.text.tokenizers import settings
from bert_variants.text.tokenizers.characters import offsets_array, without_surrogates
from bert_variants.text.tokenizers.vocabulary_file import (
    BERT_SPECIALS,
    check_specials,
    check_unique,
    lines,
    read_bytes,
    vocab_of,
)
from bert_variants.text.tokenizers.wordpiece_training import (
    LONGEST_WORD,
    train_wordpiece,
)
from bert_variants.types import Vocab

VOCABULARY = "vocab.txt"
# Options that published directories may set and that a call-string does not.
USUAL: dict[str, Any] = {"chinese_chars": True, "specials": BERT_SPECIALS, "reserved": ()}
_LOG = logging.getLogger(__name__)


class WordPiece(Tokenizer):
    """Greedy longest-match pieces of BERT's words.

    Args:
        tokens: spellings by id.
        lowercase: lower-case the text.
        strip_accents: drop combining marks; None: as ``lowercase``.
        chinese_chars: every Chinese character is a word of its own.
        specials: spelling of each special token, by the name that it has in ``Vocab``.
        reserved: further tokens that stand for no text.
        name: of the vocabulary, for messages.
        training: see ``Tokenizer.training``.
    """

    def __init__(
        self,
        tokens: Sequence[str],
        *,
        lowercase: bool,
        strip_accents: bool | None,
        chinese_chars: bool = True,
        specials: Mapping[str, str] = BERT_SPECIALS,
        reserved: Sequence[str] = (),
        name: str = VOCABULARY,
        training: Mapping[str, int] | None = None,
    ):
        check_unique(tokens, name)
        self._tokens = tuple(tokens)
        self._specials = check_specials(specials, name)
        self._reserved = tuple(reserved)
        self._vocab = vocab_of(tokens, self._specials, name, self._reserved)
        self._lowercase = lowercase
        self._strip_accents = strip_accents
        self._chinese_chars = chinese_chars
        self.training = training or {}
        normalizer = _normalizer(lowercase, strip_accents, chinese_chars)
        self._library = _library_tokenizer(self._tokens, self._vocab, normalizer)

    @property
    def kind(self) -> str:
        return "wordpiece"

    @property
    def tokens(self) -> Sequence[str]:
        return self._tokens

    @property
    def vocab(self) -> Vocab:
        return self._vocab

    def encode_batch(self, texts: Sequence[str]) -> list[Encoded]:
        clean = [without_surrogates(text) for text in texts]
        found = self._library.encode_batch(clean, add_special_tokens=False)
        return [encoded_of(encoding) for encoding in found]

    def decode(self, ids: Iterable[int | np.integer]) -> str:
        """Words joined by spaces, pieces glued, spaces before ``. , ! ?`` and such removed.

        The text is normalised (lower case, no accents) as the tokens are. An id beyond the
        vocabulary, which a padded model can predict, is written ``[30522]``.
        """
        from tokenizers import decoders

        tokens = [self._tokens[i] if i < len(self._tokens) else f"[{i}]" for i in ids]
        return decoders.WordPiece(prefix="##", cleanup=True).decode(tokens)

    def files(self) -> Mapping[str, bytes]:
        data = "".join(token + "\n" for token in self._tokens).encode()
        more = settings.unusual(
            USUAL,
            chinese_chars=self._chinese_chars,
            specials=self._specials,
            reserved=self._reserved,
        )
        return settings.write(
            self.kind,
            {VOCABULARY: data},
            lowercase=self._lowercase,
            strip_accents=self._strip_accents,
            **more,
        )


def encoded_of(encoding: Any) -> Encoded:
    """What the ``tokenizers`` library found, as arrays."""
    return Encoded(
        np.array(encoding.ids, np.int32),
        np.array(encoding.word_ids, np.int32),
        offsets_array(encoding.offsets),
    )


def _normalizer(lowercase: bool, strip_accents: bool | None, chinese_chars: bool) -> Any:
    from tokenizers import normalizers

    return normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=chinese_chars,
        strip_accents=strip_accents,
        lowercase=lowercase,
    )


def _library_tokenizer(tokens: Sequence[str], vocab: Vocab, normalizer: Any) -> Any:
    import tokenizers
    from tokenizers import models, pre_tokenizers

    # A special token gets a spelling that holds a blank, as no word does, so that text never
    # spells it: not every vocabulary puts it in brackets, which are words of their own.
    hidden = {i: f"{tokens[i]} {i}" for i in vocab.specials}
    model = models.WordPiece(
        vocab={hidden[i] if i in hidden else token: i for i, token in enumerate(tokens)},
        unk_token=hidden[vocab.unk],
        max_input_chars_per_word=LONGEST_WORD,
    )
    library = tokenizers.Tokenizer(model)
    library.normalizer = normalizer
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return library


def _words_of(lowercase: bool, strip_accents: bool | None) -> Callable[[str], list[str]]:
    from tokenizers import pre_tokenizers

    normalizer = _normalizer(lowercase, strip_accents, chinese_chars=True)
    splitter = pre_tokenizers.BertPreTokenizer()

    def words(text: str) -> list[str]:
        normal = normalizer.normalize_str(without_surrogates(text))
        return [word for word, _ in splitter.pre_tokenize_str(normal)]

    return words


class _WordPieceRecipe(Recipe):
    def __init__(self, file: str, lowercase: bool, strip_accents: bool | None, **training: Any):
        self._file = file
        self._lowercase = lowercase
        self._strip_accents = strip_accents
        self._training = training

    @property
    def needs_text(self) -> bool:
        return not self._file

    def build(self, texts: Iterable[str]) -> Tokenizer:
        if self._file:
            return self._load()
        words_of = _words_of(self._lowercase, self._strip_accents)
        tokens, training = train_wordpiece(texts, words_of, **self._training)
        return self._make(tokens, "the trained vocabulary", training)

    def restore(self, files: Mapping[str, bytes]) -> Tokenizer:
        options = settings.read(files, "lowercase", "strip_accents")
        return WordPiece(
            lines(files[VOCABULARY], VOCABULARY),
            lowercase=options["lowercase"],
            strip_accents=options["strip_accents"],
            **settings.with_usual(options, USUAL),
        )

    def _load(self) -> Tokenizer:
        tokens = lines(read_bytes(self._file), self._file)
        if self._file.endswith(".tsv"):
            tokens = _tokens_with_ids(tokens, self._file)
        upper = sum(token != token.lower() and token[0] != "[" for token in tokens)
        if self._lowercase and upper > len(tokens) // 20:
            _LOG.warning(
                "%s: %d of %d entries hold capital letters, which lowercase=True never produces; "
                "for a cased vocabulary set lowercase=False.",
                self._file,
                upper,
                len(tokens),
            )
        return self._make(tokens, self._file, {})

    def _make(self, tokens: Sequence[str], name: str, training: Mapping[str, int]) -> Tokenizer:
        return WordPiece(
            tokens,
            lowercase=self._lowercase,
            strip_accents=self._strip_accents,
            name=name,
            training=training,
        )


def _tokens_with_ids(rows: Sequence[str], name: str) -> list[str]:
    """Tokens of a ``token<TAB>id`` file (ERNIE 1.0), whose ids must count up from 0."""
    tokens = []
    for number, row in enumerate(rows, start=1):
        token, tab, index = row.rpartition("\t")
        if not tab or index != str(number - 1):
            raise TokenizerError(
                f"{name}, line {number}: {row!r}, expected token<TAB>{number - 1}."
            )
        tokens.append(token)
    return tokens


@register("tokenizer")
def wordpiece(
    size: int = 8192,
    lowercase: bool = True,
    file: str = "",
    strip_accents: bool | None = None,
    min_frequency: int = 2,
    coverage: float = 0.9999,
    limit_alphabet: int | None = None,
) -> Recipe:
    """WordPiece.

    Args:
        size: entries of the vocabulary to train, specials included.
        lowercase: lower-case the text, and strip accents unless told otherwise.
        file: a ``vocab.txt`` (one token a line), or ERNIE's ``token<TAB>id`` as ``.tsv``. Then
            nothing is trained, and of the others only the two normalising parameters are read.
        strip_accents: True or False; None does as ``lowercase`` does, as BERT.
        min_frequency: pairs rarer than this are not merged in training.
        coverage: share of all characters that the trained alphabet covers.
        limit_alphabet: at most so many distinct characters in it; None for no further limit.

    Raises:
        TokenizerError: (from ``build``) an unreadable, incomplete or ambiguous vocabulary file, or
            a corpus without a word.
    """
    return _WordPieceRecipe(
        file,
        lowercase,
        strip_accents,
        size=size,
        min_frequency=min_frequency,
        coverage=coverage,
        limit_alphabet=limit_alphabet,
    )
