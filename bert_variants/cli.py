"""The command line: ``bert-variants VERB ...``. The only importer of tyro.

``--help`` imports nothing heavy. A verb that works on an experiment reads::

    bert-variants train CONFIG [arguments of its get_config] [--field.of.experiment VALUE ...]

CONFIG is a shipped name (``bert``) or a file. Every field of the experiment is an option; where a
field is a call-string its parameters are options too: ``--corruption.rate 0.3`` edits
``tokens(rate=0.15)``.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

from bert_variants import __version__, config, registry, runtime

# verb -> what it does, in a line. Each is a module of bert_variants.commands with ``main``.
VERBS = {
    "quickstart": "train a tiny BERT on this machine in minutes, and open its report",
    "prepare": "turn text into shards: train or load the tokenizer, tokenise, split",
    "collocations": "find words that belong together, as a lexicon for PMI-masking",
    "train": "pretrain; the same command again resumes",
    "evaluate": "judge a run on held-out text",
    "ablate": "train the arms of a grid on equal terms and compare them",
    "convert": "move a model between this project and Hugging Face's files",
    "export": "write a run as programs that run with jax alone",
    "fill-mask": "guess the [MASK] in a sentence",
    "show": "rows before and after corruption, in colour or as JSON lines",
    "report": "write a run's page: one HTML file that opens offline",
    "plan": "parameters, FLOPs, memory and time of a config, without training",
    "doctor": "whether this machine is ready",
}
# Exit codes of errors that are not classes of train/errors.py.
USAGE, INVALID = 2, 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb and return the exit code: 0 done, 2 usage or config, 3 bad data, 4 diverged,
    75 stopped and saved (run it again), 76 a peer was lost (run it again)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    verb = argv[0] if argv else ""
    try:
        code = run(verb, argv[1:])
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away (| head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise
        print(f"bert-variants {verb}: {error}", file=sys.stderr)
        return code


def run(verb: str, argv: list[str]) -> int:
    """Import the verb's module and call it.

    Raises:
        ConfigError: an unknown verb.
    """
    if verb in ("", "-h", "--help"):
        print(overview())
        return 0 if verb else USAGE
    if verb == "--version":
        print(__version__)
        return 0
    if verb not in VERBS:
        raise config.ConfigError(f"unknown verb '{verb}'.{registry.nearest(verb, list(VERBS))}")
    runtime.tune()
    module = importlib.import_module(f"bert_variants.commands.{verb.replace('-', '_')}")
    return call(module, verb, argv)


def exit_code(error: Exception) -> int | None:
    """The exit code of an error that a user can mend; None for a bug."""
    if hasattr(error, "exit_code"):
        return error.exit_code
    if isinstance(error, (config.ConfigError, registry.RegistryError)):
        return USAGE
    names = {cls.__name__ for cls in type(error).__mro__}
    return INVALID if names & {"SourceError", "TokenizerError", "StoreError"} else None


def overview() -> str:
    """The text of ``bert-variants --help``."""
    lines = ["usage: bert-variants VERB [options]", "", "Pretrain and judge BERT variants.", ""]
    lines += [f"  {verb:12} {what}" for verb, what in VERBS.items()]
    lines += ["", "bert-variants VERB --help explains a verb."]
    return "\n".join(lines)


def call(module: Any, verb: str, argv: list[str]) -> int:
    """Read the options that ``module.main`` takes and call it.

    ``main(experiment, options)`` takes an experiment, ``main(grid, options)`` a grid whose base is
    one; ``main(options)`` neither. ``Options`` is the module's frozen dataclass.
    """
    import tyro

    program = f"bert-variants {verb}"
    parameters = inspect.signature(module.main).parameters
    if "experiment" in parameters:
        default, argv, about = base_experiment(argv)
        found = _parsed(module, f"{program} CONFIG", default, argv, about)
        config.check(found.experiment)
        return module.main(found.experiment, found.options)
    if "grid" in parameters:
        grid, argv, about = base_grid(argv)
        found = _parsed(module, f"{program} GRID", grid.base, argv, about)
        grid = dataclasses.replace(grid, base=found.experiment)
        return module.main(grid, found.options)
    options = tyro.cli(module.Options, args=argv, prog=program, description=module.__doc__)
    return module.main(options)


def _parsed(
    module: Any, program: str, default: config.Experiment, argv: list[str], about: str
) -> Any:
    """``options`` and ``experiment`` as the command line says them."""
    import tyro

    # made here because the annotations need tyro and the verb's module
    fields = [
        ("options", Annotated[module.Options, tyro.conf.arg(name="")]),
        ("experiment", Annotated[config.Experiment, tyro.conf.arg(name="")]),
    ]
    arguments = dataclasses.make_dataclass("Arguments", fields, frozen=True)
    return tyro.cli(
        arguments,
        args=argv,
        default=arguments(module.Options(), default),
        prog=program,
        description=f"{module.__doc__}\n{about}",
    )


def base_experiment(argv: list[str]) -> tuple[config.Experiment, list[str], str]:
    """Read CONFIG, the arguments of its ``get_config`` and the edits of call-strings.

    Returns:
        The experiment, the options that are left for tyro, and a help text on what was read here.
    """
    name, rest = ("bert", argv) if not argv or argv[0].startswith("-") else (argv[0], argv[1:])
    known = ", ".join(config.shipped_configs())
    about = f"CONFIG is a name ({known}) or a file; here: {name}."
    experiment, rest, told = _made(config.config_module(name).get_config, name, rest)
    return _edit_calls(experiment, rest, about + told)


def base_grid(argv: list[str]) -> tuple[Any, list[str], str]:
    """Read GRID, the arguments of its ``get_grid`` and the edits of its base's call-strings.

    Returns:
        The grid, the options that are left for tyro, and a help text.

    Raises:
        ConfigError: no grid is named.
    """
    from bert_variants.ablate import grid as grids

    named = bool(argv) and not argv[0].startswith("-")
    if not named and not {"-h", "--help"} & set(argv):
        raise config.ConfigError(f"ablate needs a grid: {', '.join(grids.shipped())}, or a file.")
    name, rest = (argv[0], argv[1:]) if named else (grids.shipped()[0], argv)
    about = f"GRID is a name ({', '.join(grids.shipped())}) or a file; here: {name}."
    grid, rest, told = _made(grids.load(name).get_grid, name, rest)
    base, rest, about = _edit_calls(grid.base, rest, about + told)
    return dataclasses.replace(grid, base=base), rest, about


def _made(function: Any, name: str, argv: list[str]) -> tuple[Any, list[str], str]:
    """Call ``function`` with those of its arguments that stand in ``argv``; and tell of them."""
    parameters = inspect.signature(function).parameters
    taken, rest = _take(argv, {p: p for p in parameters})
    values = {k: _literal(v, parameters[k].default) for k, v in taken.items()}
    made = config.call(function, name, values)
    told = ""
    for key, parameter in parameters.items():
        told += f"\n--{key} ({parameter.default}): {inspect.formatannotation(parameter.annotation)}"
    return made, rest, told


def _edit_calls(
    experiment: config.Experiment, argv: list[str], about: str
) -> tuple[config.Experiment, list[str], str]:
    """Apply ``--corruption.rate 0.3`` and the like, after any ``--corruption '...'`` itself."""
    calls = {path: family for path, family in config.call_fields().items() if path != "evals.masks"}
    whole, _ = _take(argv, {path: path for path in calls})
    for path, value in whole.items():
        experiment = config.set_field(experiment, path, value)
    edits, rest = [], list(argv)
    for token in argv:
        flag = token.split("=", 1)[0].removeprefix("--").replace("-", "_")
        path = next((p for p in calls if flag.startswith(p + ".")), None)
        if token.startswith("--") and path:
            found, rest = _take(rest, {flag: flag})
            edits.append((path, flag.removeprefix(path + "."), found[flag]))
    for path, key, value in edits:
        changed = registry.edit(config.get_field(experiment, path), **{key: _literal(value, None)})
        registry.lookup(calls[path], changed)
        experiment = config.set_field(experiment, path, changed)
    # the whole call-strings stand in the experiment now, edited; tyro must not set them back
    _, rest = _take(rest, {path: path for path in whole})
    return experiment, rest, about


def _take(argv: list[str], flags: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """Remove ``--flag value`` and ``--flag=value`` from ``argv``; the last one counts.

    Raises:
        ConfigError: a flag without its value.
    """
    taken: dict[str, str] = {}
    rest: list[str] = []
    i = 0
    while i < len(argv):
        flag, equals, value = argv[i].partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        if not flag.startswith("--") or name not in flags:
            rest.append(argv[i])
        elif equals:
            taken[flags[name]] = value
        elif i + 1 < len(argv):
            i += 1
            taken[flags[name]] = argv[i]
        else:
            raise config.ConfigError(f"{flag} needs a value.")
        i += 1
    return taken, rest


def _literal(text: str, default: Any) -> Any:
    """A number, True, None or a tuple where the text is one, else the text itself."""
    if isinstance(default, str):
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


if __name__ == "__main__":
    sys.exit(main())
