"""n-grams of words, as in ALBERT."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from bert_variants.ops import masking, spans
from bert_variants.registry import register
from bert_variants.types import Batch, Corrupted, Leaf, Vocab


@register("corruption", gives=("left_BP", "right_BP", "offset_BP"))
def ngrams(
    keys_B: Leaf,
    batch: Batch,
    vocab: Vocab,
    *,
    rate: float = 0.15,
    max_ngram: int = 3,
    favor_longer: bool = False,
    across_specials: bool = True,
    mask: float = 0.8,
    random: float = 0.1,
    max_predictions: int = 0,
    cap: int = 0,
    rounding: masking.Rounding = "nearest",
    random_ids: masking.RandomIds = "vocab",
) -> Corrupted:
    """Choose n-grams of whole words, n with probability 1/n; 80/10/10 is drawn for each token.

    Words come in uniform random order; with each an n is drawn, and the n-gram that begins there
    is chosen. Where it has more tokens than are left of the budget, n shrinks step by step, and a
    word that alone is too long is passed over. So is an n-gram any token of which is chosen
    already. The budget is BERT's: ``min(P, max(1, round(rate * n)))``, n counting specials too.
    ALBERT's published data were made with ``cap=20``, at 512 tokens too
    (google-research/albert:create_pretraining_data.py). A worked row::

        tokens   [CLS] un ##happi ##ly yes no [SEP] so [SEP]     n = 9, budget 2 at 20 %
        words     -1   0    0      0    1   2  -1    3  -1
        order    un with n = 1: 3 tokens are too many, and a single word cannot shrink
                 yes with n = 3: "yes no so" has 3 tokens, "yes no" fits; the budget is reached
        chosen    0   0    0      0    1   1   0    0   0

    Args:
        keys_B: typed keys, one a row.
        batch: the rows.
        vocab: of the tokenizer.
        rate: share of a row's tokens, specials counted, that is chosen.
        max_ngram: the largest n; see ``harmonic``.
        favor_longer: the shares in reverse order.
        across_specials: whether an n-gram may go on after a special token, as in the published
            code, whose list of words has no special tokens; else it ends there.
        mask, random: shares of the chosen tokens; see ``masking.replace_row``.
        max_predictions: P; 0: ``ceil(rate * T)``, or ``cap``.
        cap: of no row are more tokens chosen, whatever its rate; 0: as the rate says.
        rounding: of the budget; see ``masking.budget_row``.
        random_ids: see ``masking.draw_ids``.

    Raises:
        ValueError: shares that are none, or no n, or a cap below 0.
    """
    masking.check_shares(mask, random)
    if cap < 0:
        raise ValueError(f"cap is {cap}, expected a number of tokens, or 0 for no cap.")
    shares = harmonic(max_ngram, favor_longer)
    length = batch.tokens_BT.shape[1]
    most = masking.slots(length, rate, max_predictions)
    most = min(most, cap) if cap else most

    def choose(key: Leaf, row: Batch) -> tuple[Leaf, Leaf]:
        count_key, length_key, order_key, replace_key = jax.random.split(key, 4)
        n = masking.budget_row(
            count_key, row.valid_BT, row.maskable_BT, rate=rate, most=most, rounding=rounding
        )
        words = spans.number_words(row.words_BT, row.maskable_BT)
        if across_specials:
            words = words._replace(stop_W=jnp.full_like(words.stop_W, jnp.max(words.stop_W)))
        lengths_W = spans.draw_lengths(length_key, length, shares)
        chosen_T = choose_ngrams(order_key, words, lengths_W, max_ngram, n)
        inputs_T = masking.replace_row(
            replace_key,
            row.tokens_BT,
            chosen_T,
            vocab,
            mask=mask,
            random=random,
            random_ids=random_ids,
        )
        return inputs_T, chosen_T

    inputs_BT, chosen_BT = masking.each_row(choose, keys_B, batch)
    return spans.predict(batch, inputs_BT, chosen_BT, most)


def harmonic(max_ngram: int, favor_longer: bool = False) -> np.ndarray:
    """Shares of n = 1 .. max_ngram: ``1 / n``, made to sum to 1; reversed with ``favor_longer``.

    6/11, 3/11 and 2/11 for 3: a mean of 1.636 words.

    Raises:
        ValueError: no n.
    """
    if max_ngram < 1:
        raise ValueError(f"max_ngram is {max_ngram}, expected at least 1.")
    shares = 1.0 / np.arange(1, max_ngram + 1)
    shares = shares / shares.sum()
    return shares[::-1] if favor_longer else shares


def choose_ngrams(
    key: jax.Array,
    words: spans.Words,
    lengths_W: Leaf,
    longest: int,
    n: Leaf,
    rounds: int = 8,
) -> jax.Array:
    """The tokens of n-grams that are tried in random order; at most ``n`` tokens.

    As long as n-grams fit in what is left, they are settled all at once. From the first one on that
    does not, covered or not, one is chosen a round. Less is then left than that one's tokens, and
    each takes at least one: the result is the sequential rule's wherever at most ``rounds`` more
    n-grams are chosen; else a few tokens of the budget may stay unused.

    Args:
        key: a typed key.
        words: of the row.
        lengths_W: int32, how many words the n-gram that begins with a word shall have.
        longest: no length is larger.
        n: the budget in tokens.
        rounds: see above.

    Returns:
        bool [T]: whole words.
    """
    number_W = jnp.arange(lengths_W.shape[0], dtype=jnp.int32)
    lengths_W = jnp.minimum(lengths_W, words.stop_W - number_W)
    lengths_W = jnp.where(words.size_W > 0, lengths_W, 0)
    scores_W = jax.random.uniform(key, lengths_W.shape)
    reach = min(longest, lengths_W.shape[0])
    size = spans.around(words.size_W, reach, 0)
    costs = [size(0)]  # tokens of the next 1, 2, ... words
    for by in range(1, reach):
        costs.append(costs[-1] + size(by))

    def fitting(left: Leaf) -> Leaf:
        """The largest length, up to the drawn one, of at most ``left`` tokens."""
        fits = [(many <= lengths_W) & (cost_W <= left) for many, cost_W in enumerate(costs, 1)]
        return sum(f.astype(jnp.int32) for f in fits)

    # All at once, up to the first that would not fit: it shrinks before it is looked at
    taken_W = spans.accept(scores_W, lengths_W, longest, apart=True)
    cost_W = sum(jnp.where(lengths_W > by, size(by), 0) for by in range(reach))
    tried_W = jnp.where(lengths_W > 0, scores_W, jnp.inf)
    scores_O, costs_O, taken_O = jax.lax.sort((tried_W, cost_W, taken_W), num_keys=1)
    spent_O = jnp.where(taken_O, costs_O, 0)
    too_long_O = jnp.cumsum(spent_O) - spent_O + costs_O > n
    next_score = jnp.min(jnp.where(too_long_O, scores_O, jnp.inf))
    taken_W = taken_W & (scores_W < next_score)
    covered_W = spans.covered_from(scores_W, lengths_W, taken_W, longest) < jnp.inf

    def a_round(_: Leaf, state: tuple[Leaf, Leaf]) -> tuple[Leaf, Leaf]:
        covered_W, open_W = state
        left = n - jnp.sum(jnp.where(covered_W, words.size_W, 0), dtype=jnp.int32)
        fit_W = fitting(left)
        covered = spans.around(covered_W, reach, False)
        free_W = open_W & (fit_W > 0)
        for by in range(reach):
            free_W = free_W & ~(covered(by) & (fit_W > by))
        order_W = jnp.where(free_W, scores_W, jnp.inf)
        first = jnp.argmin(order_W)
        new_W = (number_W >= first) & (number_W < first + fit_W[first]) & free_W[first]
        return covered_W | new_W, open_W & (scores_W > order_W[first])

    covered_W, _ = jax.lax.fori_loop(0, rounds, a_round, (covered_W, scores_W >= next_score))
    return covered_W[words.of_T] & (words.of_T >= 0)
