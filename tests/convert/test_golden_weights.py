"""Stored weights under PyTorch's names become ours, and compute what is stored beside them.

The mapping that they are compared with is written out in ``models/weights.py``, apart from the
package's tables.
"""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import rows as data
from golden import make
from models import parity

from bert_variants import registry
from bert_variants.convert import directory
from bert_variants.convert.safetensors_files import write_safetensors
from bert_variants.convert.tensors import of_arrays
from bert_variants.models import network
from bert_variants.train import leaves

FIELDS = {
    "layers": "num_hidden_layers",
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "ffn": "intermediate_size",
    "embedding": "embedding_size",
    "groups": "num_hidden_groups",
    "segments": "type_vocab_size",
    "vocab": "vocab_size",
}
ACTIVATION = {"bert": "gelu_new", "roberta": "gelu", "albert": "gelu_new"}


def folder_of(folder, arrays, case):
    """A directory as transformers writes it."""
    said = {theirs: case[ours] for ours, theirs in FIELDS.items() if ours in case}
    kind = case["network"]
    more = 2 if kind == "roberta" else 0
    said |= {"model_type": kind, "hidden_act": ACTIVATION[kind]}
    said |= {"max_position_embeddings": case["positions"] + more}
    said |= {"layer_norm_eps": 1e-5} if kind == "roberta" else {}
    (folder / "config.json").write_text(json.dumps(said))
    stored = {k[2:]: v for k, v in arrays.items() if k.startswith("w/")}
    write_safetensors(folder, of_arrays(stored))
    return stored


@pytest.mark.parametrize("name", make.CASES)
def test_stored_weights_give_the_stored_outputs(tmp_path, name):
    case = make.CASES[name]
    with np.load(make.FOLDER / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    stored = folder_of(tmp_path, arrays, case)
    model = directory.look(tmp_path)
    found = dict(model.arrays())
    expected, _ = leaves.flatten(parity.OURS[case["network"]].params(stored, case))
    if case["network"] == "roberta":  # whose one row of segments the other mapping folds away
        row = found.pop("embeddings/segment/embedding")
        np.testing.assert_array_equal(
            row, stored["roberta.embeddings.token_type_embeddings.weight"]
        )
    assert found.keys() == expected.keys()
    for path, array in expected.items():
        np.testing.assert_array_equal(found[path], array, err_msg=path)
    compares(arrays, model, parity.OURS[case["network"]].label)


def compares(arrays, model, label) -> None:
    call = registry.lookup("model", model.experiment.model)
    run = dataclasses.replace(model.experiment.run, precision="float32")
    experiment = dataclasses.replace(model.experiment, run=run)
    net = network.build(experiment, model.vocab_size, wanted=parity.WANTED)
    batch = jax.tree.map(jnp.asarray, parity.our_batch(arrays, label))
    params = leaves.nested({path: jnp.asarray(x) for path, x in model.arrays()})
    outputs = data.quickly(net.apply)(params, batch)
    assert call.argument("layers") == arrays["r/scores"].shape[0]
    parity.check_outputs(arrays, outputs, batch)
