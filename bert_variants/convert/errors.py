"""What is wrong with weights, as one exception that says all of it."""

from __future__ import annotations

from collections.abc import Iterable

MOST_SHOWN = 200  # problems that a message lists; the rest is counted


class ConvertError(ValueError):
    """Weights, or files beside them, that cannot be read, written or matched.

    The message lists everything that is wrong, not the first thing.
    """

    exit_code = 3

    @classmethod
    def of(cls, heading: str, problems: Iterable[str]) -> ConvertError:
        """An error of several lines: a heading, then one problem a line.

        A worked message::

            bert.safetensors does not fit this model:
              encoder.bias is missing.
              pooler.weight has shape (3, 4), expected (4, 4).

        Of more than ``MOST_SHOWN`` problems the last line counts the rest.
        """
        lines = list(problems)
        shown = [f"  {line}" for line in lines[:MOST_SHOWN]]
        if len(lines) > MOST_SHOWN:
            shown.append(f"  and {len(lines) - MOST_SHOWN} more.")
        return cls("\n".join([f"{heading}:", *shown]))


def check(heading: str, problems: Iterable[str]) -> None:
    """Raise ``ConvertError.of(heading, problems)`` if there are any problems."""
    lines = list(problems)
    if lines:
        raise ConvertError.of(heading, lines)
