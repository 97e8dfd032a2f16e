"""Who may read whom when text is predicted in a given order, without moving a token.

``order_BT`` gives each token its place in the factorisation; equal places are allowed. The state of
a token (the content stream) is made of the tokens whose place is not later than its own, itself
included; a prediction (the query stream) of those whose place is earlier, so never of itself. By
induction over the layers nothing that is predicted has been seen: a state holds no token of a later
place than its own. A row of -1 alone has no order: ``stages`` makes such rows while it is the turn
of a part that gives none.

For XLNet's orders this is what zihangdai/xlnet does with its perm_mask (data_utils.py:_local_perm,
modeling.py:transformer_xl), where 1 means "may not". The plain form of the paper (Yang et al. 2019,
arXiv 1906.08237, equations 3 and 4) has a place of its own for every token; there, too, only the
last places are predicted, and the others may as well share the first one, as they do here.

A worked row, the fixture of the tests: six tokens, random ranks, targets X, functional token S::

    token      a b c d e f
    kind       . X . X . S
    rank       2 0 4 5 1 3
    order      0 1 0 6 0 4      one more than the rank; 0 for an ordinary token (.)

    state of a, c, e    made of a c e
    state of b          a c e and b          prediction of b from   a c e
    state of d          all                  prediction of d from   a b c e f
    state of f          a b c e f
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from bert_variants.types import Leaf


def places(ranks_T: Leaf, late_T: Leaf) -> jax.Array:
    """The order of a stretch of text: 0 for ordinary tokens, rank + 1 for late ones. int32 [T].

    Args:
        ranks_T: int32, a random permutation of 0 .. T - 1.
        late_T: bool, targets and functional tokens ([SEP], [CLS]): in the released code an
            ordinary token reads neither.
    """
    return jnp.where(late_T, ranks_T + 1, 0).astype(jnp.int32)


def predicted_last(at_BP: Leaf, weights_BP: Leaf, length: int) -> jax.Array:
    """The order of a row whose predicted positions nobody reads: 1 for these, else 0. int32 [B, T].

    Args:
        at_BP, weights_BP: the predicted positions, and 0 for unused slots.
        length: T.
    """
    column_T = jnp.arange(length, dtype=jnp.int32)
    here_BPT = (column_T[None, None, :] == at_BP[:, :, None]) & (weights_BP > 0)[:, :, None]
    return jnp.any(here_BPT, axis=1).astype(jnp.int32)


def content_visible(
    valid_BT: Leaf, order_BT: Leaf | None = None, packs_BT: Leaf | None = None
) -> jax.Array:
    """Which tokens the state of each token is made of: bool [B, T, T], or [B, 1, T] without order.

    Args:
        valid_BT: bool, where there are tokens.
        order_BT: see the module; None: every token is made of all.
        packs_BT: sequences that are packed into a row do not see each other, or None.
    """
    visible_BQT = valid_BT[:, None, :]
    if order_BT is not None:
        visible_BQT = visible_BQT & (order_BT[:, None, :] <= order_BT[:, :, None])
    if packs_BT is not None:
        visible_BQT = visible_BQT & (packs_BT[:, None, :] == packs_BT[:, :, None])
    return visible_BQT


def query_visible(
    at_BP: Leaf, valid_BT: Leaf, order_BT: Leaf | None = None, packs_BT: Leaf | None = None
) -> jax.Array:
    """Which tokens the prediction of each position in ``at_BP`` is made of: bool [B, P, T].

    Args:
        at_BP: int32.
        valid_BT, order_BT, packs_BT: as for ``content_visible``; without an order, or in a row of
            -1 alone, a prediction is made of all tokens but the one at its own position.
    """

    def at(x_BT: Leaf) -> jax.Array:
        return jnp.take_along_axis(x_BT, at_BP, axis=1)[:, :, None]

    column_T = jnp.arange(valid_BT.shape[1], dtype=jnp.int32)
    earlier_BPT = column_T[None, None, :] != at_BP[:, :, None]
    if order_BT is not None:
        own_BP1 = at(order_BT)
        earlier_BPT = jnp.where(own_BP1 < 0, earlier_BPT, order_BT[:, None, :] < own_BP1)
    visible_BPT = valid_BT[:, None, :] & earlier_BPT
    if packs_BT is not None:
        visible_BPT = visible_BPT & (packs_BT[:, None, :] == at(packs_BT))
    return visible_BPT
