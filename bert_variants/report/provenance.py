"""With what a run was made: its config beside the defaults, its starts, versions and command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from bert_variants import config
from bert_variants.report.markup import escape, section, table
from bert_variants.report.run import Run

_START = ("time", "step", "origin", "host")


def settings(run: Run) -> str:
    """Every field that differs from its default, and, folded away, all of them."""
    ours, defaults = _flat(run.config), _flat(config.to_dict(config.Experiment()))
    changed = {k: v for k, v in ours.items() if k not in defaults or defaults[k] != v}
    head = ("field", "here", "default")

    def rows(shown: Mapping[str, Any]) -> list[tuple[str, str, str]]:
        return [(k, _plain(v), _plain(defaults.get(k, "–"))) for k, v in shown.items()]

    kinds = ["changed" if path in changed else "" for path in ours]
    return section(
        "Config",
        f'<p class="note">{len(changed)} of {len(ours)} fields differ from their defaults.</p>',
        table(head, rows(changed)),
        f"<details><summary>all fields</summary>{table(head, rows(ours), kinds)}</details>",
    )


def environment(run: Run) -> str:
    """The newest start in full with its command, and all starts as a line each."""
    told = {k: v for k, v in run.manifest.items() if k != "starts"}
    newest = dict(run.starts[-1]) if run.starts else {}
    command = newest.pop("command", None)
    shown = shlex.join(map(str, command)) if isinstance(command, list) else command
    parts = [f"<pre>{escape(shown)}</pre>"] if shown else []
    values = _flat({**newest, **told})
    if values:
        parts.append(table((), [(path, _plain(value)) for path, value in values.items()]))
    if len(run.starts) > 1:
        parts += [
            f'<p class="note">Started {len(run.starts)} times; each start goes on from a '
            "checkpoint of the one before.</p>",
            table(_START, [[_plain(one.get(k, "–")) for k in _START] for one in run.starts]),
        ]
    return section("Where and with what", *parts) if parts else ""


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found.update(_flat(value, f"{path}{key}."))
        else:
            found[path + str(key)] = value
    return found
