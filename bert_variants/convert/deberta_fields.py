"""What a DeBERTa's config.json says, and how our model says it."""

from __future__ import annotations

from typing import Any

from bert_variants import registry
from bert_variants.convert.errors import check
from bert_variants.convert.fields import ACTIVATIONS, Settings
from bert_variants.convert.tensors import Tensors
from bert_variants.ops import disentangled
from bert_variants.types import Vocab

V1, V2 = "deberta", "deberta-v2"
PRESETS = {V1: "deberta_v1", V2: "deberta_v2"}
# The fields that ``arguments`` reads, and those that change nothing outside fine-tuning.
KNOWN = (
    *("relative_attention", "pos_att_type", "max_relative_positions", "position_biased_input"),
    *("embedding_size", "legacy", "padding_idx", "pooler_hidden_size", "pooler_dropout"),
    *("pooler_hidden_act", "cls_dropout", "stable_dropout"),
)
KNOWN_V2 = (
    *("position_buckets", "norm_rel_ebd", "share_att_key", "attention_head_size"),
    *("conv_kernel_size", "conv_act"),
)


def arguments(version: str, settings: Settings, found: Tensors) -> dict[str, Any]:
    """Arguments of our model that several fields say together.

    Args:
        version: ``V1`` or ``V2``.
        settings: its config.json.
        found: its tensors.

    Raises:
        ConvertError: lists what ours cannot do.
    """
    problems: list[str] = []
    width = settings.said_or("hidden_size", 1536 if version == V2 else 768)
    embedding = _whole(settings, "embedding_size", width, problems)
    made = {
        "relative": _relative(version, settings, problems),
        "key_bias": version == V2,
        "embedding": 0 if embedding == width else embedding,
        "absolute": _absolute(settings, found),
        "tied": _tied(settings, found),
    }
    if version == V2:
        made["convolution"] = _convolution(settings, problems)
        heads = settings.said_or("num_attention_heads", 24)
        size = _whole(settings, "attention_head_size", width // max(1, heads), problems)
        if size * heads != width:
            problems.append(
                f"attention_head_size is {size}, in ours {heads} heads share {width} equally."
            )
    check(f"{settings.where} describes a model that cannot be read", problems)
    return made


def _whole(settings: Settings, name: str, default: int, problems: list[str]) -> int:
    value = settings.said_or(name, default)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    problems.append(f"{name} is {value!r}, expected a whole number.")
    return default


def _convolution(settings: Settings, problems: list[str]) -> int:
    """How many tokens the convolution reads, which has the feed-forward layers' activation."""
    kernel = max(0, _whole(settings, "conv_kernel_size", 0, problems))
    if not kernel:
        return 0
    if kernel % 2 == 0:
        problems.append(f"conv_kernel_size is {kernel}, expected an odd number.")
    mine, common = settings.said_or("conv_act", "tanh"), settings.said_or("hidden_act", "gelu")
    if mine not in ACTIVATIONS or ACTIVATIONS[mine] != ACTIVATIONS[common]:
        problems.append(f"conv_act is {mine!r}, hidden_act {common!r}: ours has one for both.")
    return kernel


def _relative(version: str, settings: Settings, problems: list[str]) -> str:
    """Our call-string for the attention; empty for one that knows no distances."""
    said = settings.said_or("pos_att_type", None) or []
    parts = said.split("|") if isinstance(said, str) else said
    terms = [str(part).strip().lower() for part in parts] if isinstance(parts, list) else [""]
    if not settings.said_or("relative_attention", False):
        if terms:
            problems.append(
                f"relative_attention is false, but pos_att_type is {said!r}, which changes the "
                "scale of the scores all the same. Ours has no such form."
            )
        return ""
    if sorted(terms) not in (["c2p"], ["p2c"], ["c2p", "p2c"]):
        problems.append(f"pos_att_type is {said!r}, ours knows 'c2p', 'p2c' and both.")
        return ""
    reach = _whole(settings, "max_relative_positions", -1, problems)
    if reach < 1:
        reach = _whole(settings, "max_position_embeddings", 512, problems)
    values: dict[str, Any] = {"reach": reach, "terms": "+".join(sorted(terms))}
    if version == V2:
        normed = str(settings.said_or("norm_rel_ebd", "none")).lower().split("|")
        values |= {
            "buckets": max(0, _whole(settings, "position_buckets", -1, problems)),
            "projections": "shared" if settings.said_or("share_att_key", False) else "own",
            "norm": "layer_norm" in [part.strip() for part in normed],
        }
    usual = disentangled.PRESETS[PRESETS[version]]
    other = {name: value for name, value in values.items() if value != getattr(usual, name)}
    written = registry.write(PRESETS[version], other) if other else PRESETS[version]
    try:
        disentangled.read(written)
    except registry.RegistryError as error:
        problems.append(str(error))
    return written


def _tied(settings: Settings, found: Tensors) -> bool:
    """A head that has a table of its own says so, and is the older one, and the table is there."""
    said = settings.said_or("tie_word_embeddings", True)
    return said or not any(name.endswith("cls.predictions.decoder.weight") for name in found)


def _absolute(settings: Settings, found: Tensors) -> str:
    """Where positions go: a table that does not enter the input is the decoder's."""
    if settings.said_or("position_biased_input", True):
        return "input"
    decodes = any(name.endswith("embeddings.position_embeddings.weight") for name in found)
    return "decoder" if decodes else "none"


def older(call: registry.Call) -> bool:
    """Whether a model needs the older one of transformers' two heads for tokens.

    The other one is always as wide as the encoder and reads the table of words.
    """
    widens = call.argument("embedding") not in (0, call.argument("width"))
    return widens or not call.argument("tied")


def said(call: registry.Call, vocab: Vocab) -> dict[str, Any]:
    """Fields of config.json that say several of our arguments together."""
    del vocab
    relative = disentangled.read(call.argument("relative"))
    width = call.argument("width")
    fields: dict[str, Any] = {
        "embedding_size": call.argument("embedding") or width,
        "position_biased_input": call.argument("absolute") == "input",
        "relative_attention": relative is not None,
        "pos_att_type": [] if relative is None else relative.terms.split("+"),
        "legacy": older(call),
        "pooler_hidden_act": "gelu",
        "pooler_dropout": 0,
    }
    if relative is not None:
        fields["max_relative_positions"] = relative.reach
    if relative is not None and call.argument("key_bias"):
        fields |= {
            "position_buckets": relative.buckets or -1,
            "norm_rel_ebd": "layer_norm" if relative.norm else "none",
            "share_att_key": relative.projections == "shared",
        }
    if call.argument("convolution"):
        fields["conv_kernel_size"] = call.argument("convolution")
        named = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
        fields["conv_act"] = named[call.argument("activation")]
    return fields


def fits_v1(call: registry.Call, heads: frozenset[str]) -> str:
    """Why a model is no DeBERTa v1; empty if it is one."""
    del heads
    relative = disentangled.read(call.argument("relative"))
    if call.argument("key_bias"):
        return "its keys have a bias (key_bias=True), v1's have none."
    if call.argument("convolution"):
        return "it has a convolution, as v2 has."
    if relative is not None and (relative.buckets or relative.norm):
        return "its distances share rows or pass a LayerNorm, as v2's do."
    if relative is not None and relative.projections != "own":
        return "its distances share the projections of the content, as v2's do."
    return ""


def fits_v2(call: registry.Call, heads: frozenset[str]) -> str:
    """Why a model is no DeBERTa v2 or v3; empty if it is one."""
    del heads
    if not call.argument("key_bias"):
        return "its keys have no bias (key_bias=False), v2's have one."
    return ""
