"""Nats a token of a trained Transformer-XL, by how it reads: windows, segments with memory, chunks.

The same parameters and the same predicted tokens for all of them, so that what differs is how far
each prediction sees: a window always exactly A tokens, a segment its own beginning and a memory
that reaches back further with every layer, a chunk between 1 and A tokens.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import reading
from bert_variants import registry
from bert_variants.commands.prepare import prepared
from bert_variants.config import ConfigError, Experiment
from bert_variants.loaded import Loaded, load
from bert_variants.models import network
from bert_variants.text.pipeline import Pipeline
from bert_variants.types import Corrupted

AT_ONCE = 64  # windows
ROW = 1024  # tokens of the rows that the text is fetched in


@dataclasses.dataclass(frozen=True)
class Judged:
    """A trained model and the text that it is judged on.

    Attributes:
        loaded: the model.
        text_T: int32, held-out tokens, consecutive.
        first, count: the predicted ones are text_T[first : first + count].
    """

    loaded: Loaded
    text_T: np.ndarray
    first: int
    count: int

    def network(self, memory: int) -> network.Network:
        """The model with a memory of that size, in float32."""
        made = self.loaded.config
        model = registry.edit(made.model, memory=memory, reuse=0, same_length=False)
        run = dataclasses.replace(made.run, precision="float32")
        experiment = dataclasses.replace(made, model=model, run=run)
        return network.build(experiment, self.loaded.tokenizer.vocab.size)


def judged(run_dir: str, longest: int, tokens: int) -> Judged:
    """A run of ``transformer_xl`` and about ``tokens`` tokens of its held-out text.

    Args:
        run_dir: of the run.
        longest: tokens that stand before the first predicted one.
        tokens: predicted ones; rounded up to a multiple of 64.

    Raises:
        ConfigError: the run's model is another one, or its held-out text is too short.
    """
    loaded = load(run_dir)
    name = registry.lookup("model", loaded.config.model).name
    if name != "transformer_xl":
        raise ConfigError(f"the model of {run_dir} is '{name}', expected a 'transformer_xl'.")
    count = -(-tokens // AT_ONCE) * AT_ONCE
    text_T = held_out(loaded.config, count + 2 * longest)
    return Judged(loaded, text_T, longest, count)


def held_out(experiment: Experiment, count: int) -> np.ndarray:
    """The first ``count`` tokens of the held-out documents, [SEP] behind each: int32.

    Raises:
        ConfigError: there are fewer.
    """
    store = prepared(experiment)
    rows = Pipeline(store, "held_out", example="stream()", length=ROW, batch=1, seed=0)
    found = [b.tokens_BT[b.valid_BT] for b in rows.fixed(-(-count // ROW) + rows.windows)]
    text_T = np.concatenate(found).astype(np.int32)
    if len(text_T) < count:
        raise ConfigError(
            f"the held-out text has {len(text_T)} tokens, {count} are needed: take fewer --tokens, "
            "shorter --lengths, or more text."
        )
    return text_T[:count]


def by_windows(given: Judged, length: int) -> float:
    """Every token from the ``length`` tokens before it, each window read anew."""
    run = _losses(given.network(0))
    total, text_T = 0.0, given.text_T
    for start in range(given.first, given.first + given.count, AT_ONCE):
        at_W = np.arange(start, start + AT_ONCE)
        windows_WT = text_T[at_W[:, None] - length + np.arange(length)[None, :]]
        batch = reading.rows(windows_WT, last=True, targets_BP=text_T[at_W][:, None])
        total += float(jnp.sum(run(given.loaded.params, batch)[0]))
    return total / given.count


def by_segments(given: Judged, segment: int, memory: int) -> float:
    """Segments one after another over a memory; without one (0) they are chunks."""
    net = given.network(memory)
    run, carry = _losses(net), net.carry(1)
    total, text_T, end = 0.0, given.text_T, given.first + given.count
    for start in range(0, end - 1, segment):
        behind_S = np.arange(start + 1, start + segment + 1)
        batch = reading.rows(
            text_T[None, start : start + segment],
            last=False,
            targets_BP=text_T[None, behind_S],
            carry=carry,
        )
        losses_BP, carry = run(given.loaded.params, batch)
        wanted_S = (behind_S >= given.first) & (behind_S < end)
        total += float(np.asarray(losses_BP)[0, wanted_S].sum())
    return total / given.count


def _losses(net: network.Network) -> Any:
    """``(params, batch) -> (cross-entropies float32 [B, P], carry)``, jitted."""

    def losses(params: Any, batch: Corrupted) -> tuple[jax.Array, Any]:
        outputs = net.apply(params, batch)
        logits_BPV = outputs.token_logits_BPV
        own_BP1 = jnp.take_along_axis(logits_BPV, batch.targets_BP[..., None], axis=-1)
        return jax.nn.logsumexp(logits_BPV, axis=-1) - own_BP1[..., 0], outputs.carry

    return jax.jit(losses)
