"""Everything that training changes."""

from __future__ import annotations

from bert_variants.types import Leaf, pytree


@pytree
class TrainState:
    """The state between two steps. Randomness is not in it: it is derived from the step.

    Attributes:
        step: int32 scalar, steps done.
        params: nested dict of float32 arrays.
        opt_state: the optimizer's.
        skipped: int32 scalar, steps in a row that were skipped because the loss or the gradient
            was not finite.
        carry: recurrent state with leading B, or None.
    """

    step: Leaf
    params: Leaf
    opt_state: Leaf
    skipped: Leaf
    carry: Leaf = None
