"""The experiment as one frozen value: what a config file returns and a checkpoint stores.

Every default stands here; there is no second place. What can be swapped by name (source,
tokenizer, example, corruption, model, objectives, optimizer, schedule) is a call-string of the
registry. A variant is ``dataclasses.replace`` of a parent.
"""

from bert_variants.config.checks import check, wanted_outputs
from bert_variants.config.experiment import (
    Data,
    Evals,
    Experiment,
    Mesh,
    Optim,
    Run,
    call_fields,
    init_map_entry,
)
from bert_variants.config.fields import ConfigError, get_field, set_field
from bert_variants.config.files import (
    call,
    config_module,
    get_config,
    module_of,
    shipped_configs,
    shipped_in,
)
from bert_variants.config.stored import differences, from_dict, to_dict
from bert_variants.config.terms import objective_terms

__all__ = [
    "ConfigError",
    "Data",
    "Evals",
    "Experiment",
    "Mesh",
    "Optim",
    "Run",
    "call",
    "call_fields",
    "check",
    "config_module",
    "differences",
    "from_dict",
    "get_config",
    "get_field",
    "init_map_entry",
    "module_of",
    "objective_terms",
    "set_field",
    "shipped_configs",
    "shipped_in",
    "to_dict",
    "wanted_outputs",
]
