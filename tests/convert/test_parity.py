"""Random weights of transformers become ours and compute the same; ours become theirs again.

Every configuration is odd: heads that are not H / 64, tables narrower or wider than the layers,
one, two or three segments, odd vocabularies. Every parameter is random, LayerNorms and biases too.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import rows as data
from models.parity import assert_close

from bert_variants import registry
from bert_variants.convert import directory, pairs
from bert_variants.convert.directory import Model
from bert_variants.loaded import batch_of
from bert_variants.models import network
from bert_variants.train import leaves
from bert_variants.types import Batch, Corrupted, Outputs, Vocab

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@dataclasses.dataclass(frozen=True)
class Case:
    """A class of transformers and its configuration.

    Attributes:
        architecture: the class.
        settings: of its config.
        pad: id of padding.
        tokens, pair: names of its logits, empty where it has none.
    """

    architecture: str
    settings: dict[str, Any]
    pad: int = 0
    tokens: str = ""
    pair: str = ""

    @property
    def config(self) -> str:
        return self.architecture.partition("For")[0].removesuffix("Model") + "Config"


def sizes(layers: int, width: int, heads: int, ffn: int, vocab: int, **more: Any) -> dict[str, Any]:
    return {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": ffn,
        "vocab_size": vocab,
        "max_position_embeddings": 17,
        **more,
    }


def distil(layers: int, width: int, heads: int, ffn: int, vocab: int, **more: Any) -> dict:
    names = {"n_layers": layers, "dim": width, "n_heads": heads, "hidden_dim": ffn}
    return names | {"vocab_size": vocab, "max_position_embeddings": 17, **more}


BOTH = {"tokens": "prediction_logits", "pair": "seq_relationship_logits"}
CASES = {
    "bert": Case(
        "BertForPreTraining",
        sizes(3, 18, 3, 28, 61, type_vocab_size=3, hidden_act="gelu_new", layer_norm_eps=1e-6),
        **BOTH,
    ),
    "bert_one_segment": Case(
        "BertForMaskedLM",
        sizes(2, 20, 5, 12, 37, type_vocab_size=1, hidden_act="gelu"),
        tokens="logits",
    ),
    "bert_untied": Case(
        "BertForPreTraining", sizes(2, 14, 2, 9, 45, tie_word_embeddings=False), **BOTH
    ),
    "roberta_untied": Case(
        "RobertaForMaskedLM",
        sizes(2, 12, 4, 9, 45, type_vocab_size=1, tie_word_embeddings=False),
        pad=1,
        tokens="logits",
    ),
    "albert_untied": Case(
        "AlbertForMaskedLM",
        sizes(2, 12, 4, 9, 45, embedding_size=5, tie_word_embeddings=False),
        tokens="logits",
    ),
    "distilbert_untied": Case(
        "DistilBertForMaskedLM",
        distil(2, 12, 4, 15, 33, tie_word_embeddings=False),
        tokens="logits",
    ),
    "bert_pairs": Case(
        "BertForNextSentencePrediction", sizes(2, 14, 7, 9, 33, hidden_act="relu"), pair="logits"
    ),
    "bert_alone": Case("BertModel", sizes(13, 10, 2, 21, 41)),  # deep: looped over, not unrolled
    "ernie": Case(
        "ErnieForPreTraining",
        sizes(2, 18, 3, 28, 61, hidden_act="relu", layer_norm_eps=1e-5),
        **BOTH,
    ),
    "ernie_three_segments": Case(
        "ErnieForMaskedLM", sizes(3, 20, 4, 11, 43, type_vocab_size=3), tokens="logits"
    ),
    "roberta": Case(
        "RobertaForMaskedLM",
        sizes(2, 18, 3, 26, 47, type_vocab_size=1, layer_norm_eps=1e-5),
        pad=1,
        tokens="logits",
    ),
    "roberta_other_padding": Case(
        "RobertaForMaskedLM",
        sizes(3, 20, 4, 13, 51, type_vocab_size=2, pad_token_id=3),
        pad=3,
        tokens="logits",
    ),
    "albert": Case(
        "AlbertForPreTraining",
        sizes(3, 20, 5, 14, 41, embedding_size=7),
        tokens="prediction_logits",
        pair="sop_logits",
    ),
    "albert_groups": Case(
        "AlbertForPreTraining",
        sizes(5, 12, 3, 22, 37, embedding_size=15, num_hidden_groups=2, type_vocab_size=3),
        tokens="prediction_logits",
        pair="sop_logits",
    ),
    "albert_own_layers": Case(
        "AlbertForMaskedLM",
        sizes(4, 12, 4, 10, 39, embedding_size=5, num_hidden_groups=4, hidden_act="gelu"),
        tokens="logits",
    ),
    "distilbert": Case("DistilBertForMaskedLM", distil(2, 18, 3, 28, 61), tokens="logits"),
    "distilbert_relu": Case(
        "DistilBertForMaskedLM", distil(3, 20, 5, 9, 35, activation="relu"), tokens="logits"
    ),
    "distilbert_alone": Case("DistilBertModel", distil(2, 12, 4, 15, 33)),
    "discriminator": Case(
        "ElectraForPreTraining", sizes(2, 18, 3, 28, 61, embedding_size=10, type_vocab_size=3)
    ),
    "discriminator_wide": Case(
        "ElectraForPreTraining", sizes(3, 20, 4, 12, 35, embedding_size=20, hidden_act="gelu_new")
    ),
    "generator": Case(
        "ElectraForMaskedLM",
        sizes(2, 12, 4, 28, 61, embedding_size=18, type_vocab_size=1),
        tokens="logits",
    ),
    "generator_wide": Case(
        "ElectraForMaskedLM", sizes(3, 14, 2, 9, 43, embedding_size=14), tokens="logits"
    ),
}
every = pytest.mark.parametrize("name", CASES)


def theirs(case: Case, seed: int = 0) -> Any:
    """A model of transformers whose every parameter is random."""
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    torch.manual_seed(seed)
    settings = getattr(transformers, case.config)(**case.settings, attn_implementation="eager")
    model = getattr(transformers, case.architecture)(settings).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            scale = "norm" in name.lower() and name.endswith("weight")
            weight.copy_(torch.randn(weight.shape) * 0.2 + scale)
    return model


def rows(case: Case, seed: int = 1, length: int = 13) -> Corrupted:
    """Four rows, one of a single token, with three positions to predict in each but that."""
    rng = np.random.default_rng(seed)
    vocab = case.settings["vocab_size"]
    valid = np.arange(length) < np.array([length, 8, 1, 11])[:, None]
    segments = rng.integers(0, case.settings.get("type_vocab_size", 2), valid.shape)
    if "n_layers" in case.settings:
        segments = np.zeros_like(segments)
    ids = rng.integers(case.pad + 1, vocab, valid.shape)
    batch = batch_of(np.where(valid, ids, case.pad), segments * valid, valid)
    at = np.array([[1, 4, 12], [2, 3, 7], [0, 0, 0], [0, 5, 10]], np.int32)
    weights = np.ones(at.shape, np.float32)
    weights[2, 1:] = 0
    targets = rng.integers(0, vocab, at.shape).astype(np.int32) * (weights > 0)
    return Corrupted.of(
        batch, inputs_BT=batch.tokens_BT, at_BP=at, targets_BP=targets, weights_BP=weights
    )


def run_theirs(model: Any, case: Case, batch: Corrupted) -> dict[str, np.ndarray]:
    """Everything that it says of the rows."""
    import torch

    arguments = {
        "input_ids": torch.from_numpy(batch.inputs_BT).long(),
        "attention_mask": torch.from_numpy(batch.valid_BT).long(),
    }
    if not case.architecture.startswith("DistilBert"):
        arguments["token_type_ids"] = torch.from_numpy(batch.segments_BT).long()
    labels = np.full(batch.inputs_BT.shape, -100, np.int64)
    for row, at, target, weight in zip(
        range(4), batch.at_BP, batch.targets_BP, batch.weights_BP, strict=True
    ):
        labels[row, at[weight > 0]] = target[weight > 0]
    with torch.no_grad():
        said = model(**arguments, output_hidden_states=True, output_attentions=True)
        trunk = getattr(model, model.base_model_prefix, model)
        base = trunk(**arguments)
        found = {
            "hidden": torch.stack(said.hidden_states),
            "attentions": torch.stack(said.attentions),
        }
        for name in ("tokens", "pair"):
            if getattr(case, name):
                found[name] = said[getattr(case, name)]
        if case.tokens:
            flat = found["tokens"].flatten(0, 1)
            found["mlm"] = torch.nn.functional.cross_entropy(
                flat, torch.from_numpy(labels).flatten(), ignore_index=-100
            )
        if case.architecture == "ElectraForPreTraining":
            found["replaced"] = said.logits
        if case.pair:
            found["pooled"] = base.pooler_output
    return {name: tensor.numpy() for name, tensor in found.items()}


def run_ours(model: Model, batch: Corrupted) -> Outputs:
    net, params = exactly(model)
    asked = batch if "mlm" in model.experiment.objectives else plain(batch)
    return data.quickly(net.apply)(params, jax.tree.map(jnp.asarray, asked))


def exactly(model: Model) -> tuple[network.Network, Any]:
    """Our network in float32, with everything that it can say, and its parameters."""
    run = dataclasses.replace(model.experiment.run, precision="float32")
    experiment = dataclasses.replace(model.experiment, run=run)
    net = network.build(experiment, model.vocab_size, wanted=[("layers", 0), ("scores", 0)])
    return net, leaves.nested({path: jnp.asarray(x) for path, x in model.arrays()})


def plain(batch: Corrupted) -> Batch:
    """The rows without positions to predict."""
    return batch_of(batch.inputs_BT, batch.segments_BT, batch.valid_BT)


def compare(case: Case, expected: dict[str, np.ndarray], model: Model, batch: Corrupted) -> None:
    """All hidden states, attentions, the pooled vector and logits to 1e-5, the loss to 1e-6."""
    found, valid = run_ours(model, batch), batch.valid_BT
    assert len(found.layers) == len(expected["hidden"])
    for number, layer in enumerate(found.layers):
        assert_close(layer[valid], expected["hidden"][number][valid], f"layer {number}")
    hidden = np.where(valid[:, None, None, :], 0.0, -np.inf)
    shares = np.asarray(jax.nn.softmax(np.asarray(found.scores) + hidden, axis=-1))
    assert shares.shape == expected["attentions"].shape
    of_text = np.broadcast_to(valid[:, None, :], shares.shape[1:4])
    for number, (mine, other) in enumerate(zip(shares, expected["attentions"], strict=True)):
        assert_close(mine[of_text], other[of_text], f"attention {number}")
    if case.tokens:
        used = batch.weights_BP > 0
        picked = np.take_along_axis(expected["tokens"], batch.at_BP[..., None], axis=1)
        assert_close(found.token_logits_BPV[used], picked[used], "token logits")
        loss = registry.lookup("objective", "mlm")(found, batch).loss.value()
        np.testing.assert_allclose(loss, expected["mlm"], rtol=1e-6)
    if case.pair:
        assert_close(found.pooled_BD, expected["pooled"], "pooled")
        assert_close(found.pair_logits_BC, expected["pair"], "pair logits")
    if "replaced" in expected:
        assert_close(
            found.replaced_logits_BT[valid], expected["replaced"][valid], "replaced logits"
        )


def loads(folder: Path, model: Model) -> Any:
    """The model in a folder as transformers loads it, with no key missing or unexpected."""
    import json

    import transformers

    said = json.loads((folder / "config.json").read_bytes())
    assert transformers.AutoConfig.from_pretrained(folder).model_type == model.model_type
    cls = getattr(transformers, said["architectures"][0])
    more = {}
    if cls.__name__ in ("BertModel", "RobertaModel"):
        more["add_pooling_layer"] = False
    made, info = cls.from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager", **more
    )
    assert not any(info.values()), info
    return made.eval()


def written_again(folder: Path, model: Model, case: Case) -> None:
    params = dict(model.arrays())
    vocab = Vocab(size=model.vocab_size, pad=case.pad, unk=0, cls=0, sep=0, mask=0)
    directory.write(folder, model.experiment, params, vocab, form=model.model_type)


@every
def test_theirs_become_ours_and_ours_theirs(tmp_path, name):
    case = CASES[name]
    model, batch = theirs(case), rows(case)
    expected = run_theirs(model, case, batch)
    model.save_pretrained(tmp_path / "theirs")
    ours = directory.look(tmp_path / "theirs")
    compare(case, expected, ours, batch)
    written_again(tmp_path / "ours", ours, case)
    again = run_theirs(loads(tmp_path / "ours", ours), case, batch)
    for key, array in expected.items():
        np.testing.assert_array_equal(again[key], array, err_msg=key)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_weights_of_theirs(tmp_path, dtype):
    """Weights that were stored in 16 bits are read as the numbers they are."""
    import torch

    case = CASES["bert"]
    model, batch = theirs(case), rows(case)
    model.to(getattr(torch, dtype)).save_pretrained(tmp_path)
    expected = run_theirs(model.float(), case, batch)
    compare(case, expected, directory.look(tmp_path), batch)


def test_several_files_of_theirs(tmp_path):
    case = CASES["albert_groups"]
    model, batch = theirs(case), rows(case)
    model.save_pretrained(tmp_path, max_shard_size=4_000)
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    compare(case, run_theirs(model, case, batch), directory.look(tmp_path), batch)


@pytest.mark.parametrize("tied", [True, False])
def test_a_generator_and_a_discriminator_of_theirs(tmp_path, tied):
    """Two models, tables tied or each with its own; then one model of ours, and two again."""
    import torch

    width = 10 if tied else 12
    writing = Case(
        "ElectraForMaskedLM", sizes(2, 12, 4, 28, 61, embedding_size=width), tokens="logits"
    )
    reading = Case("ElectraForPreTraining", sizes(3, 18, 3, 14, 61, embedding_size=10))
    writer, reader = theirs(writing, 1), theirs(reading, 2)
    if tied:
        with torch.no_grad():
            source = dict(reader.electra.embeddings.named_parameters())
            for name, weight in writer.electra.embeddings.named_parameters():
                weight.copy_(source[name])
    writer.save_pretrained(tmp_path / "theirs" / "generator")
    reader.save_pretrained(tmp_path / "theirs" / "discriminator")
    model = pairs.look(tmp_path / "theirs")
    tying = registry.lookup("model", model.experiment.model).argument("tying")
    assert tying == ("embeddings" if tied else "none")
    batch = rows(reading)
    net, params = exactly(model)
    read = net.apply(params, plain(batch))
    valid = batch.valid_BT
    expected = run_theirs(reader, reading, batch)
    assert_close(read.hidden_BTD[valid], expected["hidden"][-1][valid], "discriminator")
    assert_close(read.replaced_logits_BT[valid], expected["replaced"][valid], "replaced")
    drawn = net.apply(params, jax.tree.map(jnp.asarray, batch), key=jax.random.key(0))
    expected = run_theirs(writer, writing, batch)
    picked = np.take_along_axis(expected["tokens"], batch.at_BP[..., None], axis=1)
    assert_close(drawn.token_logits_BPV, picked, "generator")


def test_heads_of_tasks_are_left_and_the_encoder_is_read(tmp_path):
    case = Case("BertForSequenceClassification", sizes(2, 12, 3, 9, 35, num_labels=4))
    model = theirs(case)
    model.save_pretrained(tmp_path)
    ours = directory.look(tmp_path)
    assert ours.experiment.objectives == ""
    assert {name.split(".")[0] for name in ours.left} == {"classifier", "bert"}
    batch = rows(case)
    compare(case, run_theirs(model, case, batch), ours, batch)
