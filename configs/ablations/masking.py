"""What to mask: single tokens, whole words, spans, n-grams, or shuffled trigrams as well.

Run: bert-variants ablate configs/ablations/masking.py --steps 3000
On other text: ... --data.source 'text("wikipedia_en/train_*.jsonl.xz")' --dir runs/wikipedia

Phrases and entities (``units``, ``whole_units``) need a lexicon or a segmenter and are not here:
name one as --data.units and add their arm in a file of your own.
"""

from bert_variants.ablate.grid import Grid
from bert_variants.configs.ablations._base import base

ARMS = {
    "tokens": {},
    "whole-words": {"corruption": "whole_words(rate=0.15)"},
    "spans": {"corruption": "spans(rate=0.15, p=0.2, max_words=10)"},
    "t5-spans": {"corruption": "t5_spans(rate=0.15, mean_length=3.0)"},
    "ngrams": {"corruption": "ngrams(rate=0.15, max_ngram=3)"},
    "shuffle": {"corruption": "shuffle(rate=0.15, trigrams=0.05)", "objectives": "word_order"},
}


def get_grid(steps: int = 3000) -> Grid:
    """BERT's tokens as the baseline; the same share of tokens is predicted in every arm."""
    return Grid(
        name="masking",
        base=base("masking", steps),
        arms=ARMS,
        baseline="tokens",
        claim=(
            "SpanBERT (Joshi et al. 2019, arXiv 1907.10529, section 6.1): masking spans is as good "
            "as or better than single tokens, whole words, entities and noun phrases on all tasks "
            "but coreference."
        ),
        number=(
            "SQuAD 2.0 F1: subwords 83.8, whole words 84.3, spans 85.4; "
            "coreference F1: 77.7, 76.6, 76.4"
        ),
        compares=(
            "pseudo-log-likelihood of held-out text after equal tokens, and fixed masks of three "
            "kinds, each of which favours the arm that was trained on its like. The paper's claim "
            "is about fine-tuning, which these probes do not measure."
        ),
    )
