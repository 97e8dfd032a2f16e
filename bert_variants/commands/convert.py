"""Move a model: a run becomes a directory of Hugging Face's transformers, anything else a run.

What SRC is, is recognised from what it holds: a run's directory; a directory of transformers with
safetensors; one of Sentence-BERT; a folder with generator/ and discriminator/; a
pytorch_model.bin, read by a reader that admits tensors and nothing else; an original TensorFlow
checkpoint of BERT, ALBERT, ELECTRA or XLNet. A run becomes one of these with --form tensorflow.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import tyro

from bert_variants.convert import pretrained


@dataclasses.dataclass(frozen=True)
class Options:
    """What to move where.

    Attributes:
        src: the model.
        dst: the directory to write; made whole or not at all.
        dtype: of the weights that are written for transformers.
        form: the type of model to write it as, such as ernie, or tensorflow; empty: the one that
            fits.
        force: replace a model that is there.
    """

    src: Annotated[str, tyro.conf.Positional]
    dst: Annotated[str, tyro.conf.Positional]
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    form: str = ""
    force: bool = False


def main(options: Options) -> int:
    """Convert, and say what was left out."""
    notes = pretrained.convert(
        options.src, options.dst, dtype=options.dtype, form=options.form, force=options.force
    )
    print(f"{options.src} -> {options.dst}")
    for note in notes:
        print(f"  {note}")
    return 0
