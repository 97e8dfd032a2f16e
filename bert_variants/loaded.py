"""A trained model to use: ``bv.load(run_dir)``."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bert_variants import config
from bert_variants.models import network
from bert_variants.text.tokenizer import Tokenizer
from bert_variants.train import checkpoint, leaves
from bert_variants.types import Batch, Corrupted, Leaf, Outputs

MASK = "[MASK]"  # how a text says "guess this", whatever the tokenizer's own mask token is
POOLING = "pooling.json"  # of a run whose model makes vectors of texts


@dataclasses.dataclass(frozen=True)
class Guess:
    """A candidate for a masked position and its probability."""

    token: str
    probability: float


@dataclasses.dataclass(frozen=True)
class Loaded:
    """Parameters with all that is needed to use them.

    Attributes:
        config: the experiment that made them.
        network: the model as pure functions.
        params: nested dict of float32 arrays.
        tokenizer: the one that it was trained with.
        step: how many steps it was trained for.
        pooling: how a text's vector is made of its tokens' (mean, cls, ...), for Sentence-BERT;
            empty: nothing is said.
    """

    config: config.Experiment
    network: network.Network
    params: Any
    tokenizer: Tokenizer
    step: int
    pooling: tuple[str, ...] = ()

    @property
    def model(self) -> Any:
        """The linen module: ``loaded.model.apply({"params": loaded.params}, batch)``."""
        return self.network.module

    def __call__(
        self,
        tokens_BT: Leaf,
        segments_BT: Leaf = None,
        attention_mask_BT: Leaf = None,
        layers: bool = False,
    ) -> Outputs:
        """Hidden states (and whatever heads the model has that need no masked positions).

        Compiled once for each shape [B, T].

        Args:
            tokens_BT: integer ids, special tokens included.
            segments_BT: 0 or 1; None: all 0.
            attention_mask_BT: true where there is a token; None: where the id is not padding.
            layers: also return every layer's output.
        """
        rows = batch_of(tokens_BT, segments_BT, attention_mask_BT, pad=self.tokenizer.vocab.pad)
        return self._apply(layers)(self.params, rows)

    def fill_mask(self, text: str, top: int = 5) -> list[list[Guess]]:
        """The likeliest tokens for each ``[MASK]`` in ``text``, in their order.

        Raises:
            ValueError: no ``[MASK]``, a text longer than the model's positions, or a model that
                predicts no tokens.
        """
        if MASK not in text:
            raise ValueError(f"{text!r} has no {MASK}.")
        if "token_logits_BPV" not in dict(config.wanted_outputs(self.config)):
            raise ValueError(f"the objectives {self.config.objectives!r} trained no token head.")
        ids = self.ids(text)
        rows = batch_of(np.asarray([ids]), pad=self.tokenizer.vocab.pad)
        at_BP = np.flatnonzero(np.asarray(ids) == self.tokenizer.vocab.mask)[None].astype(np.int32)
        asked = Corrupted.of(
            rows,
            inputs_BT=rows.tokens_BT,
            at_BP=at_BP,
            targets_BP=np.zeros_like(at_BP),
            weights_BP=np.ones(at_BP.shape, np.float32),
        )
        logits_PV = self._apply(False)(self.params, asked).token_logits_BPV[0]
        shares_PV = np.asarray(jax.nn.softmax(logits_PV, axis=-1))
        best_PK = np.argsort(-shares_PV, axis=-1, kind="stable")[:, :top]
        return [
            [Guess(self._token(int(v)), float(shares[v])) for v in best]
            for best, shares in zip(best_PK, shares_PV, strict=True)
        ]

    def _token(self, number: int) -> str:
        """Its spelling; a row behind the vocabulary's end has none and is written ``[30522]``."""
        tokens = self.tokenizer.tokens
        return tokens[number] if number < len(tokens) else f"[{number}]"

    def ids(self, text: str) -> list[int]:
        """``[CLS] text [SEP]`` as ids; each ``[MASK]`` in the text is the mask token.

        Raises:
            ValueError: longer than the model's positions.
        """
        vocab = self.tokenizer.vocab
        pieces = self.tokenizer.encode_batch(text.split(MASK))
        ids = [vocab.cls]
        for i, piece in enumerate(pieces):
            ids += [vocab.mask] * (i > 0) + piece.ids.tolist()
        ids.append(vocab.sep)
        most = self.model.positions
        if len(ids) > most:
            raise ValueError(f"the text has {len(ids)} tokens, the model takes at most {most}.")
        return ids

    @functools.cached_property
    def _applies(self) -> dict[bool, Any]:
        return {}

    def _apply(self, layers: bool) -> Any:
        if layers not in self._applies:
            asked = [("layers", 0)] if layers else []
            net = network.build(self.config, self.network.module.vocab_size, wanted=asked)
            self._applies[layers] = jax.jit(net.apply)
        return self._applies[layers]


def load(run_dir: str | Path, *, host: bool = False) -> Loaded:
    """The newest valid checkpoint of a run, ready to use on this machine's default device.

    Args:
        run_dir: of the run.
        host: leave the parameters in host memory, as numpy arrays.

    Raises:
        CheckpointError: no such run, or none of its checkpoints is valid.
    """
    found = checkpoint.load(Path(run_dir), host=host)
    path = Path(run_dir) / POOLING
    pooling = json.loads(path.read_bytes())["pooling"] if path.is_file() else ()
    made = of(found.experiment, found.params, found.tokenizer, found.step)
    return dataclasses.replace(made, pooling=tuple(pooling))


def of(
    experiment: config.Experiment,
    params: Any,
    tokenizer: Tokenizer,
    step: int = 0,
    pooling: tuple[str, ...] = (),
) -> Loaded:
    """A model from its parts. Its table of words may have more rows than there are tokens."""
    rows = rows_of(params) or tokenizer.vocab.size
    net = network.build(experiment, rows)
    return Loaded(experiment, net, params, tokenizer, step, pooling)


def rows_of(params: Any) -> int:
    """The rows of the table of words, 0 where there is none of that name."""
    for path, leaf in leaves.flatten(params)[0].items():
        if path.endswith("word/embedding"):
            return leaf.shape[0]
    return 0


def batch_of(
    tokens_BT: Leaf, segments_BT: Leaf = None, valid_BT: Leaf = None, *, pad: int = 0
) -> Batch:
    """Rows from plain arrays, without word or unit boundaries (all -1).

    Args:
        tokens_BT: integer ids [B, T].
        segments_BT: [B, T]; None: 0.
        valid_BT: true where there is a token; None: where the id is not ``pad``.
        pad: the id of padding.

    Raises:
        ValueError: arrays that are not [B, T].
    """
    tokens_BT = np.asarray(tokens_BT, np.int32)
    if tokens_BT.ndim != 2:
        raise ValueError(f"tokens_BT has shape {tokens_BT.shape}, expected [B, T].")
    B, T = tokens_BT.shape
    valid_BT = tokens_BT != pad if valid_BT is None else np.asarray(valid_BT, bool)
    segments_BT = np.zeros((B, T)) if segments_BT is None else np.asarray(segments_BT)
    for name, array in (("segments_BT", segments_BT), ("attention_mask_BT", valid_BT)):
        if array.shape != (B, T):
            raise ValueError(f"{name} has shape {array.shape}, expected {(B, T)} as tokens_BT.")
    none_BT = np.full((B, T), -1, np.int32)
    return Batch(
        tokens_BT=tokens_BT,
        segments_BT=segments_BT.astype(np.int32),
        positions_BT=np.broadcast_to(np.arange(T, dtype=np.int32), (B, T)),
        valid_BT=valid_BT,
        maskable_BT=valid_BT,
        words_BT=none_BT,
        units_BT=none_BT,
        example_id_B=np.arange(B, dtype=np.uint32),
        visit_B=np.zeros(B, np.uint32),
    )
