"""ERNIE 1.0's units: each is hidden by a throw of its own, without a quota."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from bert_variants import keys
from bert_variants.config import ConfigError
from bert_variants.ops import masking, spans
from bert_variants.registry import Call, RegistryError, register
from bert_variants.types import Batch, Corrupted, Leaf, Vocab

SEEN_LENGTH = 3  # tokens of the unit that a token lies in, on average over tokens; see ``slots``
DEVIATIONS = 6
GROUP_BITS = 10  # rows whose numbers agree but for these last bits share one throw of ``chance``


def _check(call: Call) -> None:
    kinds, chance = call.argument("kinds"), call.argument("chance")
    numbers = isinstance(kinds, (list, tuple)) and all(type(kind) is int for kind in kinds)
    if not numbers or not all(0 <= kind <= 126 for kind in kinds):
        raise RegistryError(
            f"corruption '{call}': kinds is {kinds!r}, expected numbers of kinds, such as (0, 2): "
            "a lexicon numbers its kinds from 0 in the order of their names."
        )
    if not 0 <= chance <= 1:
        raise RegistryError(f"corruption '{call}': chance is {chance}, expected 0 <= chance <= 1.")


@register(
    "corruption",
    gives=("left_BP", "right_BP", "offset_BP"),
    needs=("data.units",),
    budget="mean",
    check=_check,
)
def units(
    keys_B: Leaf,
    batch: Batch,
    vocab: Vocab,
    *,
    rate: float = 0.15,
    mask: float = 0.8,
    random: float = 0.1,
    kinds: Sequence[int] = (),
    chance: float = 1.0,
    max_predictions: int = 0,
    random_ids: masking.RandomIds = "vocab",
) -> Corrupted:
    """Choose each unit with probability ``rate``: all its tokens or none; 80/10/10 for each token.

    How many tokens a row loses is random; the mean is ``rate`` of the text, specials not counted
    (PaddlePaddle/ERNIE:ERNIE/batching.py). Units are those that ``data.units`` found. There every
    token is in a unit, because ERNIE's own analyser cuts the whole text; here a token in no unit,
    or in one of another kind, belongs to its word, which in Chinese is the character, and without
    words it is alone. A worked row, chosen with probability 0.15 each: 我, 在, the four of unit 0::

        tokens   [CLS] 我 在 清 华 大 学 [SEP]
        units     -1  -1 -1  0  0  0  0  -1

    The paper's stages, from one prepared store and as a schedule (see ``stages``)::

        units(chance=0.0)     basic: characters, or word pieces; whole_words() for English words
        units(kinds=(1,))     phrases, if the lexicon's kinds are "entity" and "phrase"
        units(kinds=(0,))     entities; () is both

    ERNIE's list of files has a column "probability of masking units"; one throw then decides for a
    whole file and epoch between units and single tokens. The rows of a batch know no file. Here
    one throw decides for each visit of about a thousand rows of neighbouring text (whose
    ``example_id_B`` agrees but for the last 10 bits). It depends on nothing but those rows and the
    visit: not on the seed, and ``data.copies`` does not repeat it. Rows are shuffled, so a batch
    mixes both ways; in ERNIE it follows a file and holds, most often, one.

    Args:
        keys_B: typed keys, one a row.
        batch: the rows.
        vocab: of the tokenizer.
        rate: probability that a unit is chosen.
        mask, random: shares of the chosen tokens; see ``masking.replace_row``.
        kinds: numbers of the kinds of units that count, as ``data.units`` numbers them (a lexicon
            in the order of their names); none: all.
        chance: probability that a group of rows hides units; else it hides single tokens.
        max_predictions: P at most; 0: see ``slots``. Where a row has more, whole units are given
            back at random until the rest fits.
        random_ids: see ``masking.draw_ids``. ERNIE's are uniform over V but for id 0.

    Raises:
        ConfigError: ``kinds`` for rows that do not have them.
    """
    masking.check_shares(mask, random)
    length = batch.tokens_BT.shape[1]
    most = slots(length, rate, max_predictions)
    if kinds and batch.unit_kinds_BT is None:
        raise ConfigError(
            f"units(kinds={tuple(kinds)}): these rows have no kinds of units. They come with text "
            "that was prepared with data.units; leave kinds out for rows from elsewhere."
        )

    def choose(key: Leaf, row: Batch) -> tuple[Leaf, Leaf]:
        select_key, fit_key, replace_key = jax.random.split(key, 3)
        groups_T = _groups(row, kinds, chance)
        selected_G = jax.random.uniform(select_key, (length,)) < rate
        chosen_T = selected_G[groups_T] & row.maskable_BT
        if most < length:
            chosen_T = masking.choose_groups(fit_key, groups_T, chosen_T, jnp.int32(most))
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


def slots(length: int, rate: float, max_predictions: int = 0) -> int:
    """P: what a row of ``length`` tokens practically never exceeds, though it has no quota.

    The number of chosen tokens has the mean ``rate * T`` and the variance ``rate * (1 - rate)``
    times the sum of the squared lengths of units, which is T times the length of the unit that a
    token lies in, averaged over tokens. P is the mean plus 6 standard deviations for an average of
    3, and at most T: 62 for 128 tokens and 161 for 512 at 15 %. Where units have 1 to 4 tokens, one
    row in ten million has more; where all have 8, one in a thousand.

    Raises:
        ValueError: a rate outside [0, 1].
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate is {rate}, expected 0 <= rate <= 1.")
    deviation = math.sqrt(rate * (1 - rate) * SEEN_LENGTH * length)
    most = min(length, math.ceil(round(rate * length + DEVIATIONS * deviation, 9)))
    return max(1, min(most, max_predictions) if max_predictions else most)


def _groups(row: Batch, kinds: Sequence[int], chance: float) -> Leaf:
    """int32 [T]: the unit of each token, else its word, else the token alone."""
    column_T = jnp.arange(row.tokens_BT.shape[0], dtype=jnp.int32)
    if chance <= 0:
        return column_T
    units_T = row.units_BT
    if kinds:
        wanted_T = jnp.isin(row.unit_kinds_BT, jnp.asarray(kinds, row.unit_kinds_BT.dtype))
        units_T = jnp.where(wanted_T, units_T, -1)
    groups_T = spans.groups(units_T, row.words_BT, column_T)
    if chance >= 1:
        return groups_T
    group = row.example_id_B >> GROUP_BITS
    key = keys.derive(jax.random.key(0), "units", group, row.visit_B)
    return jnp.where(jax.random.uniform(key) < chance, groups_T, column_T)
