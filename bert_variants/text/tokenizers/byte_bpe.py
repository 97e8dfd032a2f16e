"""Byte-level BPE, the tokenizer of GPT-2 and RoBERTa: load its two files or train them.

    byte_bpe(size=8192)                                              trains
    byte_bpe(vocab="roberta_vocab.json", merges="gpt2_vocab.bpe")    loads

Special tokens have RoBERTa's names: ``<s>`` and ``</s>`` where BERT has [CLS] and [SEP]. A trained
vocabulary has RoBERTa's layout: ``<s>`` 0, ``<pad>`` 1, ``</s>`` 2, ``<unk>`` 3, ``<mask>`` last.
GPT-2's own ``encoder.json`` has none of these tokens and is refused: its ids are not RoBERTa's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bert_variants.registry import register
from bert_variants.text.tokenizer import Encoded, Recipe, Tokenizer, TokenizerError
from bert_variants.text.tokenizers import settings
from bert_variants.text.tokenizers.byte_bpe_files import (
    read_merges,
    read_vocabulary,
    write_merges,
    write_vocabulary,
)
from bert_variants.text.tokenizers.byte_bpe_training import byte_characters, train_byte_bpe
from bert_variants.text.tokenizers.characters import (
    alone,
    code_points,
    offsets_array,
    raw_offsets,
    trimmed,
    without_controls,
    without_surrogates,
)
from bert_variants.text.tokenizers.vocabulary_file import check_specials, read_bytes, vocab_of
from bert_variants.types import Vocab

VOCABULARY, MERGES = "vocab.json", "merges.txt"
SPECIALS = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}
# Options that published directories may set and that a call-string does not.
USUAL: dict[str, Any] = {"specials": SPECIALS, "reserved": ()}
_BLANK = byte_characters()[0x20]


class ByteBPE(Tokenizer):
    """Merged bytes within the words of GPT-2's pattern; nothing is unknown to it.

    A word is what GPT-2's pattern cuts out (letters, digits, or a run of other characters, with
    the blank before it), further cut so that punctuation marks and Chinese characters begin words
    of their own wherever a token does. Offsets leave out the blank that a token begins with, but no
    line end or other white space.

    Args:
        tokens: spellings by id, bytes as their visible characters.
        merges: pairs, first to be merged first.
        clean: drop control characters and U+FFFD from the text.
        prefix_space: put a blank before the text.
        specials: spelling of each special token, by the name that it has in ``Vocab``.
        reserved: further tokens that stand for no text.
        name: of the vocabulary, for messages.
        training: see ``Tokenizer.training``.
    """

    def __init__(
        self,
        tokens: Sequence[str],
        merges: Sequence[tuple[str, str]],
        *,
        clean: bool,
        prefix_space: bool,
        specials: Mapping[str, str] = SPECIALS,
        reserved: Sequence[str] = (),
        name: str = VOCABULARY,
        training: Mapping[str, int] | None = None,
    ):
        self._tokens = tuple(tokens)
        self._merges = tuple(merges)
        self._specials = check_specials(specials, name)
        self._reserved = tuple(reserved)
        self._vocab = vocab_of(tokens, self._specials, name, self._reserved)
        self._clean = clean
        self._prefix_space = prefix_space
        self.training = training or {}
        self._library = _library_tokenizer(self._tokens, self._merges, prefix_space)
        self._bytes = {character: byte for byte, character in enumerate(byte_characters())}

    @property
    def kind(self) -> str:
        return "byte_bpe"

    @property
    def tokens(self) -> Sequence[str]:
        return self._tokens

    @property
    def vocab(self) -> Vocab:
        return self._vocab

    def encode_batch(self, texts: Sequence[str]) -> list[Encoded]:
        whole = [without_surrogates(text) for text in texts]
        cleaned = [without_controls(text) if self._clean else (text, None) for text in whole]
        found = self._library.encode_batch([t for t, _ in cleaned], add_special_tokens=False)
        return [
            self._encoded(encoding, text, places)
            for encoding, (text, places) in zip(found, cleaned, strict=True)
        ]

    def decode(self, ids: Iterable[int | np.integer]) -> str:
        """The bytes of the tokens as text; bytes that are no UTF-8 become U+FFFD.

        An id beyond the vocabulary, which a padded model can predict, is written ``[50265]``.
        """
        data = bytearray()
        for i in ids:
            token = self._tokens[i] if i < len(self._tokens) else f"[{i}]"
            if i not in self._vocab.specials and self._bytes.keys() >= set(token):
                data += bytes(self._bytes[character] for character in token)
            else:
                data += token.encode()
        return data.decode("utf-8", errors="replace")

    def continues_word(self, token: str) -> bool:
        """Never certain: a token without a blank may begin a text or follow a mark."""
        return False

    def files(self) -> Mapping[str, bytes]:
        more = settings.unusual(USUAL, specials=self._specials, reserved=self._reserved)
        return settings.write(
            self.kind,
            {VOCABULARY: write_vocabulary(self._tokens), MERGES: write_merges(self._merges)},
            clean=self._clean,
            prefix_space=self._prefix_space,
            **more,
        )

    def _encoded(self, encoding: Any, text: str, places: np.ndarray | None) -> Encoded:
        points = code_points(text)
        offsets = trimmed(points, offsets_array(encoding.offsets), only_blanks=True)
        if self._prefix_space and encoding.ids and not self._tokens[encoding.ids[0]].strip(_BLANK):
            offsets[0] = 0  # the blank that was put before the text is none of its characters
        words = _separate_words(points, np.array(encoding.word_ids, np.int32), offsets)
        ids = np.array(encoding.ids, np.int32)
        return Encoded(ids, words, raw_offsets(offsets, places))


def _separate_words(points: np.ndarray, words: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """``words`` with a further word at tokens that begin, or follow, a mark or CJK character."""
    start, end, last = offsets[1:, 0], offsets[1:, 1], offsets[:-1, 1]
    # Tokens that share a character (bytes of it) are of one word, and so are a blank and what
    # follows it.
    same = (words[1:] == words[:-1]) & (last <= start) & (start < end) & (offsets[:-1, 0] < last)
    at = np.flatnonzero(same)
    at = at[alone(points[start[at]]) | alone(points[last[at] - 1])]
    if not len(at):
        return words
    more = np.zeros_like(words)
    more[at + 1] = 1
    return words + np.cumsum(more, dtype=np.int32)


def _byte_level(prefix_space: bool) -> Any:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)


def _library_tokenizer(
    tokens: Sequence[str], merges: Sequence[tuple[str, str]], prefix_space: bool
) -> Any:
    import tokenizers
    from tokenizers import models

    ids = {token: i for i, token in enumerate(tokens)}
    library = tokenizers.Tokenizer(models.BPE(vocab=ids, merges=list(merges)))
    library.pre_tokenizer = _byte_level(prefix_space)
    return library


def _words_of() -> Callable[[str], list[str]]:
    splitter = _byte_level(prefix_space=False)

    def words(text: str) -> list[str]:
        return [word for word, _ in splitter.pre_tokenize_str(text)]

    return words


class _ByteBPERecipe(Recipe):
    def __init__(
        self, vocab: str, merges: str, clean: bool | None, prefix_space: bool, **training: Any
    ):
        if bool(vocab) != bool(merges):
            raise TokenizerError(
                f"byte_bpe needs both files or none: vocab={vocab!r}, merges={merges!r}."
            )
        self._vocab = vocab
        self._merges = merges
        self._clean = clean
        self._prefix_space = prefix_space
        self._training = training

    @property
    def needs_text(self) -> bool:
        return not self._vocab

    def build(self, texts: Iterable[str]) -> Tokenizer:
        clean = self.needs_text if self._clean is None else self._clean
        if self._vocab:
            tokens = read_vocabulary(read_bytes(self._vocab), self._vocab)
            _refuse_gpt2(tokens, self._vocab)
            merges = read_merges(read_bytes(self._merges), self._merges, tokens)
            name, training = self._vocab, {}
        else:
            names = list(SPECIALS.values())
            tokens, merges, training = train_byte_bpe(
                (_training_text(text, clean) for text in texts),
                _words_of(),
                specials_before=names[:-1],
                specials_after=names[-1:],
                **self._training,
            )
            name = "the trained vocabulary"
        return ByteBPE(
            tokens,
            merges,
            clean=clean,
            prefix_space=self._prefix_space,
            name=name,
            training=training,
        )

    def restore(self, files: Mapping[str, bytes]) -> Tokenizer:
        options = settings.read(files, "clean", "prefix_space")
        tokens = read_vocabulary(files[VOCABULARY], VOCABULARY)
        merges = read_merges(files[MERGES], MERGES, tokens)
        return ByteBPE(
            tokens,
            merges,
            clean=options["clean"],
            prefix_space=options["prefix_space"],
            **settings.with_usual(options, USUAL),
        )


def _training_text(text: str, clean: bool) -> str:
    whole = without_surrogates(text)
    return without_controls(whole)[0] if clean else whole


def _refuse_gpt2(tokens: Sequence[str], name: str) -> None:
    if "<|endoftext|>" in tokens and not any(token in tokens for token in SPECIALS.values()):
        raise TokenizerError(
            f"{name} is a vocabulary of GPT-2: it has <|endoftext|> but none of "
            f"{' '.join(SPECIALS.values())}, so no row can be built or masked with it, and its ids "
            "are in another order than RoBERTa's. Use RoBERTa's vocab.json (50265 entries) with "
            "the same merges."
        )


@register("tokenizer")
def byte_bpe(
    size: int = 8192,
    vocab: str = "",
    merges: str = "",
    min_frequency: int = 2,
    clean: bool | None = None,
    prefix_space: bool = False,
) -> Recipe:
    """Byte-level BPE.

    Args:
        size: entries of the vocabulary to train, the 5 specials and 256 bytes included.
        vocab, merges: ``vocab.json`` and ``merges.txt`` to load. Then nothing is trained, and of
            the others only ``clean`` and ``prefix_space`` are read.
        min_frequency: pairs rarer than this are not merged in training.
        clean: drop control characters and U+FFFD from the text. None: yes for a vocabulary
            trained here, no for a loaded one, since RoBERTa's tokenizer encodes them.
        prefix_space: put a blank before the text, so that its first word is like any other.

    Raises:
        TokenizerError: one file without the other; (from ``build``) unreadable or damaged files,
            files that do not belong together, missing special tokens, GPT-2's vocabulary.
    """
    return _ByteBPERecipe(
        vocab, merges, clean, prefix_space, size=size, min_frequency=min_frequency
    )
