# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # BERT from nothing, in a notebook
#
# Look at what a corruption does to a sentence, pretrain a tiny BERT, draw its curves, let it fill
# masks, read its hidden states, and add a corruption of your own. Everything runs on a CPU in
# minutes; on a GPU or a TPU the same cells use it. Running the notebook again resumes.

# %%
import importlib.util
import os
import subprocess
import sys

# Where the package comes from if it is not installed yet: a clone, or "git+https://..." of one. In
# Colab, clone the repository first or put its address here. Colab's own jax, which fits its
# accelerator, stays as it is.
PACKAGE = os.environ.get("BERT_VARIANTS_PACKAGE", "..")

if importlib.util.find_spec("bert_variants") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", PACKAGE], check=True)

import jax

kind = {"cpu": "CPU", "gpu": "GPU", "tpu": "TPU"}[jax.default_backend()]
print(f"jax {jax.__version__} on {jax.device_count()} x {kind}: {jax.devices()[0].device_kind}")

# %% tags=["parameters"]
STEPS = 600  # about 3 minutes on two cores
SOURCE = "pydocs()"  # the English that Python brings; or text("my/*.txt")
RUN_DIR = "runs/notebook"
DATA_DIR = "runs/data"
SENTENCE = "The function returns an unhashable representation of the given arguments."

# %% [markdown]
# ## An experiment is one frozen value
#
# `get_config` returns a published recipe. A change is `dataclasses.replace`; what can be swapped by
# name (source, tokenizer, example, corruption, model, objectives) is a call-string.

# %%
import dataclasses

import bert_variants as bv

tiny = bv.get_config("bert", size="tiny")
experiment = dataclasses.replace(
    tiny,
    data=dataclasses.replace(tiny.data, source=SOURCE, dir=DATA_DIR),
    optim=dataclasses.replace(tiny.optim, warmup=max(1, STEPS // 20)),
    run=dataclasses.replace(
        tiny.run,
        dir=RUN_DIR,
        steps=STEPS,
        log_every=max(1, STEPS // 100),
        eval_every=max(1, STEPS // 4),
        save_every=max(1, STEPS // 4),
    ),
)
experiment

# %% [markdown]
# ## Text becomes shards once
#
# The vocabulary is trained, the text tokenised and split by documents; the next time it is found
# done.

# %%
from bert_variants.text.prepare import prepare

store = prepare(experiment.data)
for name, split in store.index.splits.items():
    print(f"{name}: {split.documents:,} documents, {split.tokens:,} tokens")

# %% [markdown]
# ## What a corruption does to a sentence
#
# A corruption is a pure function of keys, rows and the vocabulary. Here is one row, spelt out: the
# glossary of names and shapes is in `bert_variants/types.py`.

# %%
import numpy as np

from bert_variants import keys
from bert_variants.report import views

tokenizer, vocab = store.tokenizer, store.vocab


def row_of(sentence: str) -> bv.Batch:
    """[CLS] sentence [SEP] as a batch of one row."""
    text = tokenizer.encode_batch([sentence])[0]
    tokens_BT = np.array([[vocab.cls, *text.ids, vocab.sep]], np.int32)
    words_BT = np.array([[-1, *text.words, -1]], np.int32)
    everywhere_BT = np.ones(tokens_BT.shape, bool)
    return bv.Batch(
        tokens_BT=tokens_BT,
        segments_BT=np.zeros_like(tokens_BT),
        positions_BT=np.arange(tokens_BT.shape[1], dtype=np.int32)[None],
        valid_BT=everywhere_BT,
        maskable_BT=words_BT >= 0,
        words_BT=words_BT,
        units_BT=np.full_like(words_BT, -1),
        example_id_B=np.zeros(1, np.uint32),
        visit_B=np.zeros(1, np.uint32),
    )


def show(corruption: str, sentence: str = SENTENCE, times: int = 3) -> None:
    """What the model would read at some steps."""
    print(corruption)
    batch = row_of(sentence)
    for step in range(times):
        keys_B = keys.corruption_keys(keys.root(0), batch, step, copies=0)
        rows = bv.lookup("corruption", corruption)(keys_B, batch, vocab)
        print(views.terminal(jax.tree.map(np.asarray, rows), tokenizer))


show("tokens(rate=0.15)")
show("whole_words(rate=0.3)")

# %% [markdown]
# ## Pretrain
#
# The same loop as `bert-variants train`: checkpoints, held-out evaluation, and if this cell is
# stopped and run again it goes on where it was, bit for bit.

# %%
from bert_variants.commands import train

exit_code = train.main(experiment, train.Options())
assert exit_code == 0, f"training ended with exit code {exit_code}"

# %%
import json
from pathlib import Path

import matplotlib.pyplot as plt

records = [
    json.loads(line) for line in Path(RUN_DIR, "metrics.jsonl").read_text().split("\n") if line
]
figure, axes = plt.subplots(figsize=(7, 3.5))
for key, label in (("loss", "training"), ("held_out/loss", "held out")):
    points = [(r["step"], r[key]) for r in records if key in r]
    axes.plot(*zip(*points, strict=True), marker="." if len(points) < 20 else None, label=label)
axes.set(xlabel="step", ylabel="loss (nats)", title=experiment.name)
axes.legend()
plt.show()

# %% [markdown]
# ## Use it

# %%
m = bv.load(RUN_DIR)
for text in (
    "The [MASK] of the function is returned.",
    "If the file does not [MASK], an error is raised.",
):
    (guesses,) = m.fill_mask(text)
    print(text, "  ".join(f"{g.token} {g.probability:.0%}" for g in guesses))

# %%
ids_BT = np.array([m.ids(SENTENCE)])
outputs = m(ids_BT, layers=True)
print("top layer   ", outputs.hidden_BTD.shape)
print("every layer ", len(outputs.layers), "x", outputs.layers[0].shape)
# The same, purely functional: a linen module and a dict of arrays.
again = m.model.apply({"params": m.params}, row_of(SENTENCE), train=False)
np.testing.assert_allclose(again.hidden_BTD, outputs.hidden_BTD, atol=1e-4)

# %% [markdown]
# ## A corruption of your own
#
# In a notebook the decorator registers it; as a file in `bert_variants/corruptions/` it is found,
# tested by the contract tests and usable from the command line:
# `--corruption 'long_words(rate=0.15)'`.

# %%
import jax.numpy as jnp

from bert_variants.ops import masking


@bv.register("corruption")
def long_words(keys_B, batch, vocab, *, rate: float = 0.15):
    """Tokens of words that were split, in reading order, until the budget is spent."""
    P = masking.slots(batch.tokens_BT.shape[1], rate)
    of_same_word_BTT = batch.words_BT[:, :, None] == batch.words_BT[:, None, :]
    split_BT = batch.maskable_BT & (of_same_word_BTT.sum(-1) > 1)
    chosen_BT = split_BT & (jnp.cumsum(split_BT, axis=-1) <= P)
    inputs_BT = jnp.where(chosen_BT, vocab.mask, batch.tokens_BT)
    return masking.predict(batch, inputs_BT, chosen_BT, P)


show("long_words(rate=0.3)", times=1)
