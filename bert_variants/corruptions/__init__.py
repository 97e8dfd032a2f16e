"""Corruptions, one idea a file: ``(keys_B, batch, vocab, *, ...) -> Corrupted``.

Pure, static shapes, a row's result independent of the other rows. A registered corruption joins
two choices, *what is selected* and *what is put there*; both are functions of ``ops/masking.py``
and ``ops/spans.py``. ``batch.step`` is the training step, and None in evaluation.

Traits, none by default: ``gives``, the optional fields of Corrupted that it fills, besides the
positions; ``needs``, fields of the config that must not be empty, such as ``data.units``;
``calls``, parameters that hold call-strings of other corruptions, which are looked up with it and
whose ``gives`` and ``needs`` become its own; ``check``, a function of the looked-up call that
refuses arguments that do not fit one another; ``budget="mean"`` where ``rate`` holds on average;
``random=False`` where the key plays no part;
``whole_words=True`` where that is all it does, so that text must have words of several tokens.
Dropping a file here registers it.
"""
