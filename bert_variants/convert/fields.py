"""The fields of a config.json, what transformers takes where one is absent, and what they mean."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

# "gelu" is the exact function in transformers, the approximation in Google's code.
ACTIVATIONS = {
    "gelu": "gelu_erf",
    "gelu_python": "gelu_erf",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "tanh": "tanh",
}
MOST = 2**31 - 1  # of any size
MOST_LAYERS = 4_096  # names of tensors are made for each

# Fields of any config.json that do not change what a network computes: bookkeeping, generation,
# what is done in fine-tuning, ids that the tokenizer knows, how new parameters would start.
CHANGES_NOTHING = frozenset(
    {
        *("_name_or_path", "_num_labels", "name_or_path", "architectures", "model_type"),
        *("transformers_version", "torch_dtype", "dtype", "torchscript", "return_dict"),
        *("finetuning_task", "task_specific_params", "problem_type", "language", "name"),
        *("id2label", "label2id", "num_labels", "classifier_dropout", "classifier_dropout_prob"),
        *("use_cache", "gradient_checkpointing", "chunk_size_feed_forward", "use_bfloat16"),
        *("output_attentions", "output_hidden_states", "output_past", "initializer_range"),
        *("pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id"),
        *("mask_token_id", "unk_token_id", "decoder_start_token_id", "tokenizer_class"),
        *("prefix", "do_sample", "max_length", "min_length", "early_stopping", "num_beams"),
        *("num_beam_groups", "diversity_penalty", "temperature", "top_k", "top_p", "typical_p"),
        *("repetition_penalty", "length_penalty", "no_repeat_ngram_size", "bad_words_ids"),
        *("encoder_no_repeat_ngram_size", "num_return_sequences", "output_scores"),
        *("return_dict_in_generate", "forced_bos_token_id", "forced_eos_token_id"),
        *("remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens"),
        *("begin_suppress_tokens", "tf_legacy_loss", "pruned_heads", "attn_implementation"),
        *("_attn_implementation", "_attn_implementation_autoset"),
        *("pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers"),
        *("pooler_size_per_head", "pooler_type", "directionality"),
    }
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """A config.json, with what transformers takes where it says nothing.

    Attributes:
        values: of the file.
        where: the file, for messages.
    """

    values: Mapping[str, Any]
    where: str

    def said_or(self, name: str, default: Any) -> Any:
        """The value, or transformers' own default."""
        return self.values[name] if name in self.values else default


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of config.json that is an argument of our model.

    Attributes:
        theirs: its name there.
        ours: the model's argument.
        default: what transformers takes where the file does not say it; its type is the field's.
        values: their value -> ours, where they are spelled differently; several of theirs may be
            one of ours, of which the first is written. None: the same.
    """

    theirs: str
    ours: str
    default: Any
    values: Mapping[Any, Any] | None = None

    def read(self, settings: Settings) -> tuple[Any, list[str]]:
        """Ours, and what is wrong with theirs."""
        value = settings.said_or(self.theirs, self.default)
        if self.values is not None:
            if not isinstance(value, str) or value not in self.values:
                known = ", ".join(map(repr, self.values))
                return None, [f"{self.theirs} is {value!r}, expected one of {known}."]
            return self.values[value], []
        return self._plain(value)

    def _plain(self, value: Any) -> tuple[Any, list[str]]:
        said = f"{self.theirs} is {value!r}"
        if isinstance(self.default, bool):
            fine = isinstance(value, bool)
            return value, [] if fine else [f"{said}, expected true or false."]
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return None, [f"{said}, expected a number."]
        if isinstance(self.default, float):
            fine = 0 <= value < 1
            return float(value), [] if fine else [f"{said}, expected 0 <= x < 1."]
        most = MOST_LAYERS if self.ours in ("layers", "groups") else MOST
        if not isinstance(value, int) or not 0 <= value <= most:
            return None, [f"{said}, expected a whole number from 0 to {most}."]
        return value, []

    def write(self, value: Any) -> Any:
        """Theirs.

        Raises:
            KeyError: a value that theirs cannot say.
        """
        if self.values is None:
            return value
        for theirs, ours in self.values.items():
            if ours == value:
                return theirs
        raise KeyError(value)
