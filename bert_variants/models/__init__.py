"""Architectures, one a file: linen modules ``(batch, *, train) -> Outputs``. Only here is flax.

Traits: ``outputs``, the names of the outputs that it can make; ``reserved``, the fields that the
project sets and a call-string may not; ``recurrent``, whether it has a memory from batch to batch
and a method ``carry(rows)``; ``reads``, the optional fields of Corrupted that it obeys: one without
``order_BT`` must not be given rows that hold what it shall predict. Dropping a file here registers
it.
"""
