"""Corruptions, one idea a file: ``(keys_B, batch, vocab, *, ...) -> Corrupted``.

Pure, static shapes, a row's result independent of the other rows. A registered corruption joins
two choices, *what is selected* and *what is put there*; both are functions of ``ops/masking.py``.
Traits: ``gives``, the optional fields of Corrupted that it fills, besides the positions.
Dropping a file here registers it.
"""
