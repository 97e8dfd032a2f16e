"""The families of Hugging Face directories, one a file. Dropping a file here makes it known.

A file says what is so and computes nothing. It has one name, ``FAMILIES``, a tuple of ``Family``::

    FAMILIES = (
        Family(
            model_type="bert",                     # of config.json
            model="bert", config="bert",           # our model, and our config around it
            fields=(Field("hidden_size", "width", 768), ...),
            fixed={"is_decoder": (False,)},        # what ours does not do otherwise
            table=_table,                          # our model's call -> Table of Rules
            architectures=(Architecture("BertForMaskedLM", frozenset({"tokens"})), ...),
            objectives=(("heads/tokens/bias", "mlm"), ...),
        ),
    )

1. Print our parameters: ``family.shapes_of(experiment, 30)``. Everything under ``layers/`` is a
   stack: axis 0 counts layers. Print theirs: the names and shapes of a ``model.safetensors``.
2. Write one ``Rule`` for each parameter of ours, heads included, whether or not every model has it:
   rules of parts that a model has not are passed over. Kernels of ours are [in, out], theirs
   [out, in]: ``TRANSPOSED``. Where one tensor of theirs is several of ours (a fused projection),
   ``ours`` is a tuple of paths and the ``Change`` cuts and joins. A table may depend on the
   model's arguments: it is made by a function of the call.
3. Tensors of theirs without a parameter of ours: buffers and heads of tasks go into ``ignored``,
   with a reason; heads that only some of our models have get ``spare``; what is written although
   ours has nothing goes into ``zeros``. Everything else is an error, and shall be.
4. Every field of config.json that changes a number is in ``fields``, in ``fixed``, or read by
   ``arguments``; the default is that of transformers' class, because files leave defaults out.

``tests/convert/test_families.py`` then checks by the family's existing that its table covers every
parameter of every size of its config.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil

from bert_variants import registry
from bert_variants.convert.errors import ConvertError
from bert_variants.convert.family import Family, resolved


@functools.cache
def families() -> dict[str, Family]:
    """Every family, by its ``model_type``."""
    found: dict[str, Family] = {}
    for module in pkgutil.iter_modules(__path__):
        for family in importlib.import_module(f"{__name__}.{module.name}").FAMILIES:
            found[family.model_type] = family
    return found


def of_model_type(model_type: object, where: str) -> Family:
    """The family that a config.json names.

    Raises:
        ConvertError: it names none, or one that is not known; tells the nearest.
    """
    known = families()
    if not isinstance(model_type, str):
        raise ConvertError(f"{where} has no model_type. Known: {', '.join(sorted(known))}.")
    if model_type not in known:
        hint = registry.nearest(model_type, list(known))
        raise ConvertError(f"{where}: model_type {model_type!r} cannot be read.{hint}")
    return known[model_type]


def of_model(model: str, heads: frozenset[str], form: str = "") -> Family:
    """The family that a model of ours is written as.

    Args:
        model: its call-string.
        heads: names of the heads that it has.
        form: the model_type to write; empty: the one that fits.

    Raises:
        ConvertError: none fits; tells for each why.
    """
    call = resolved(registry.lookup("model", model))
    if form:
        able = [of_model_type(form, "the form that was asked for")]
    else:
        able = [f for f in families().values() if f.model == call.name and f.rank >= 0]
        able.sort(key=lambda family: -family.rank)
    reasons = {}
    for family in able:
        fits = family.model == call.name
        why = (
            family.fits(call, heads) if fits else f"that is the form of our model '{family.model}'."
        )
        if not why:
            return family
        reasons[family.model_type] = why
    if not able:
        raise ConvertError(f"model '{call.name}' has no form in Hugging Face's transformers.")
    raise ConvertError.of(
        f"model {model} has no form in Hugging Face's transformers",
        [f"as {name}: {why}" for name, why in reasons.items()],
    )
