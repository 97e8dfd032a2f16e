"""Architectures, one a file: linen modules ``(batch, *, train) -> Outputs``. Only here is flax.

Traits: ``outputs``, the names of the outputs that it can make; ``reserved``, the fields that the
project sets and a call-string may not. Dropping a file here registers it.
"""
