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
# # A gallery of ways to mask
#
# The same sentence under every corruption that is registered, side by side, in English and in
# Chinese. Red reads the mask token, yellow another token, green the same one; blue was moved. Point
# at a token to see its target, its word and its unit. A corruption of your own joins as soon as its
# decorator has run. Everything here runs on a CPU in a minute.

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
ENGLISH = "pydocs()"  # or text("my/*.txt")
CHINESE = "synthetic(documents=2000, language='zh')"  # or text("zh/*.jsonl.xz", field="text")
# the words of Chinese text, if the extra "zh" is installed; or lexicon("file") for entities
CHINESE_UNITS = "chinese_words()" if importlib.util.find_spec("rjieba") else ""
DATA_DIR = "runs/data"
TOKENS = 48  # of a row that are drawn

# %% [markdown]
# ## Rows to look at
#
# Text is prepared once: a vocabulary is trained, tokens, words and units are stored. Units are
# stretches of text that belong together, such as phrases, entities, or the words of Chinese.

# %%
import dataclasses

import bert_variants as bv
from bert_variants.text.pipeline import Pipeline, Position
from bert_variants.text.prepare import prepare


def first_rows(source: str, units: str, rows: int = 256) -> tuple[bv.Batch, object]:
    """Single sequences of 128 tokens, and the store that they come from."""
    data = dataclasses.replace(
        bv.get_config("bert", size="tiny").data,
        source=source,
        units=units,
        tokenizer="wordpiece(size=4096)",
        dir=DATA_DIR,
    )
    store = prepare(data)
    pipeline = Pipeline(store, "train", example="single()", length=128, batch=rows, seed=0)
    batch, _ = pipeline.batch(Position())
    return batch, store


english, english_store = first_rows(ENGLISH, "words()")
chinese, chinese_store = first_rows(CHINESE, CHINESE_UNITS)

# %% [markdown]
# ## English

# %%
from IPython.display import HTML, display

from bert_variants.report import gallery


def draw(batch: bv.Batch, store: object, title: str, calls: tuple[str, ...] = ()) -> None:
    """The first row under every corruption, or under those that are named."""
    found = gallery.pictures(batch, store.tokenizer, store.vocab, calls=calls, tokens=TOKENS)
    print(gallery.terminal(found, colour=False, width=120))
    display(HTML(gallery.standalone(found, title)))


draw(english, english_store, "English")

# %% [markdown]
# ## Chinese
#
# Each character is a token; words and entities are units.

# %%
draw(chinese, chinese_store, "Chinese")

# %% [markdown]
# ## What each of them really does
#
# Rates over 256 rows: what share of the tokens is predicted, what the model reads there, how many
# words are hidden wholly, how long the runs are.

# %%
import jax
import numpy as np

from bert_variants import keys
from bert_variants.report import views

print(f"{'corruption':16} predicted  masked  replaced  same  whole words  mean run  moved")
for name in bv.names("corruption"):
    row_keys = keys.corruption_keys(keys.root(0), english, 0, copies=0)
    bound = bv.lookup("corruption", f"{name}()")
    made = jax.jit(lambda k, b, bound=bound: bound(k, b, english_store.vocab))(row_keys, english)
    found = views.statistics(jax.tree.map(np.asarray, made), english_store.vocab)
    shares = (found.of_maskable, found.masked, found.replaced, found.unchanged, found.whole_words)
    print(
        f"{name:16}",
        *(f"{'-' if share is None else format(share, '.1%'):>8}" for share in shares),
        f"{found.span_length or 0:9.2f}",
        f"{found.moved or 0:8.1%}",
    )

# %% [markdown]
# ## One of your own
#
# Three lines that choose, and it stands beside the others.

# %%
import jax.numpy as jnp

from bert_variants.ops import masking


@bv.register("corruption")
def ends(keys_B, batch, vocab, *, rate: float = 0.15):
    """The first and the last tokens of a row; always [MASK]."""
    P = masking.slots(batch.tokens_BT.shape[1], rate)
    order_BT = jnp.cumsum(batch.maskable_BT, axis=-1)
    from_end_BT = order_BT[:, -1:] - order_BT
    chosen_BT = batch.maskable_BT & ((order_BT <= P // 2) | (from_end_BT < P // 2))
    return masking.predict(batch, jnp.where(chosen_BT, vocab.mask, batch.tokens_BT), chosen_BT, P)


draw(english, english_store, "Mine", ("ends()", "ends(rate=0.4)", "tokens(mask=1.0, random=0.0)"))
