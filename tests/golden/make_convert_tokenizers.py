"""Write ``convert/tokenizers.npz``: what transformers makes of nasty texts, directory by directory.

    python tests/golden/make_convert_tokenizers.py tests/golden/convert/tokenizers.npz

The directories are those of ``tests/convert/nasty.py:PUBLISHED``, whose vocabularies are trained on
the spot, the same on every run. Of each the file holds the vocabulary's digest, the ids and offsets
of every text, and the rows of one text and of a pair.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "convert"))

import nasty

# 10,000 characters, and what other directories show as well.
LEFT_OUT = ("long_word",)
NAMES = [name for name in nasty.PUBLISHED if name not in ("bert_plain", "ernie")]


def main(out: Path) -> None:
    """Compute everything and write it."""
    from transformers import AutoTokenizer

    arrays: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as base:
        for name in NAMES:
            theirs = AutoTokenizer.from_pretrained(nasty.PUBLISHED[name](Path(base) / name))
            ids, ends, offsets = [], [], []
            for text_name, text in nasty.NASTY.items():
                if text_name in LEFT_OUT:
                    continue
                found = theirs(
                    text,
                    add_special_tokens=False,
                    return_offsets_mapping=True,
                    split_special_tokens=True,
                )
                ids += found["input_ids"]
                offsets += found["offset_mapping"]
                ends.append(len(ids))
            arrays[f"{name}/ids"] = np.array(ids, np.int16)
            arrays[f"{name}/offsets"] = np.array(offsets, np.int16)
            arrays[f"{name}/ends"] = np.array(ends, np.int16)
            arrays[f"{name}/single"] = np.array(theirs("the fox")["input_ids"], np.int16)
            pair = theirs("the fox", "a dog ran", return_token_type_ids=True)
            arrays[f"{name}/pair"] = np.array(pair["input_ids"], np.int16)
            arrays[f"{name}/segments"] = np.array(pair["token_type_ids"], np.int16)
            tokens = theirs.convert_ids_to_tokens(range(len(theirs)))
            arrays[f"{name}/tokens"] = np.array(nasty.digest(tokens))
    np.savez_compressed(out, **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
