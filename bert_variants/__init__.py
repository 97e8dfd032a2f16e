"""Every BERT variant in JAX/Flax: BERT plus the few lines its paper changed.

::

    import bert_variants as bv

    experiment = bv.get_config("bert", size="tiny")   # frozen; change it with dataclasses.replace
    m = bv.load("runs/quickstart")                    # m.config, m.model, m.params, m.tokenizer
    m.fill_mask("The [MASK] of the function is returned.")
    m(tokens_BT).hidden_BTD                           # jitted
    m = bv.from_pretrained("bert-base-uncased/")       # Hugging Face's files; the same object
    bv.save_pretrained("runs/quickstart", "export/")   # and the way back
    bv.register("corruption")(my_masking)             # then: --corruption 'my_masking(rate=0.2)'
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# public name -> the module it lives in; imported when first asked for
_HOMES = {
    "Batch": "types",
    "Corrupted": "types",
    "Experiment": "config",
    "Mean": "types",
    "Outputs": "types",
    "Terms": "types",
    "from_pretrained": "convert.pretrained",
    "get_config": "config",
    "load": "loaded",
    "lookup": "registry",
    "names": "registry",
    "register": "registry",
    "save_pretrained": "convert.pretrained",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'bert_variants' has no attribute '{name}'")
    return getattr(importlib.import_module(f"bert_variants.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
