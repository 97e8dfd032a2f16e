"""Train a sentencepiece model in memory, the same bytes on every run."""

from __future__ import annotations

import io
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from bert_variants.text.tokenizer import TokenizerError
from bert_variants.text.tokenizers.vocabulary_file import BERT_SPECIALS

# The result of unigram training depends on the number of threads (measured), so it is fixed.
THREADS = 1
LONGEST_LINE = 1000  # characters; the trainer passes over lines of more than 4192 bytes
# The trainer also passes over every line that holds one of these.
_RESERVED = str.maketrans({"\t": " ", "▅": " "})
_LOG = logging.getLogger(__name__)


def train_sentencepiece(
    texts: Iterable[str],
    prepare: Callable[[str], str],
    *,
    size: int,
    kind: str,
    lowercase: bool,
    coverage: float,
) -> tuple[bytes, dict[str, int]]:
    """The bytes of a ``.model`` and an account of the training.

    Layout: [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, [MASK] 4, then pieces as the library orders them.

    Args:
        prepare: what is done to a text before the library sees it, in training as in encoding.
        size: pieces to reach; a unigram model of little text may get fewer.
        kind: "unigram" or "bpe".
        lowercase: fold case within the model's own normaliser (``nmt_nfkc_cf``).
        coverage: share of all characters that have a piece.

    Raises:
        TokenizerError: an empty corpus, or what the library refuses (such as a size too large for
            the text, or too small for its characters).
    """
    import sentencepiece

    account: Counter[str] = Counter()
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_lines(texts, prepare, account),
            model_writer=model,
            model_type=kind,
            vocab_size=size,
            hard_vocab_limit=False,
            character_coverage=coverage,
            normalization_rule_name="nmt_nfkc_cf" if lowercase else "nmt_nfkc",
            num_threads=THREADS,
            pad_id=0,
            unk_id=1,
            bos_id=-1,
            eos_id=-1,
            pad_piece=BERT_SPECIALS["pad"],
            unk_piece=BERT_SPECIALS["unk"],
            control_symbols=[BERT_SPECIALS[name] for name in ("cls", "sep", "mask")],
            minloglevel=2,
        )
    except (RuntimeError, OSError, ValueError) as error:
        raise TokenizerError(
            f"sentencepiece could not train {size} {kind} pieces on {account['lines']} lines "
            f"({account['characters']} characters): {error}"
        ) from None
    if not account["lines"]:
        raise TokenizerError("cannot train a vocabulary: the corpus holds no word.")
    account.update(threads=THREADS, asked=size)
    _LOG.info("trained a sentencepiece model: %s", dict(account))
    return model.getvalue(), dict(account)


def _lines(
    texts: Iterable[str], prepare: Callable[[str], str], account: Counter[str]
) -> Iterator[str]:
    """Lines of at most ``LONGEST_LINE`` characters; longer ones cut, at a blank if there is one."""
    for text in texts:
        for line in prepare(text).translate(_RESERVED).split("\n"):
            rest = line.strip()
            while rest:
                cut = len(rest)
                if cut > LONGEST_LINE:
                    cut = rest.rfind(" ", 1, LONGEST_LINE)
                    cut = LONGEST_LINE if cut < 0 else cut
                    account["cut_lines"] += 1
                account["lines"] += 1
                account["characters"] += cut
                yield rest[:cut]
                rest = rest[cut:].lstrip()
