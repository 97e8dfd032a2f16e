"""The README.md that is written beside exported weights."""

from __future__ import annotations

from pathlib import Path

from bert_variants.loaded import Loaded


def card(loaded: Loaded, run_dir: Path | None = None) -> str:
    """What is known of a model, as a model card; what is not known says "not recorded".

    Args:
        loaded: the model.
        run_dir: the run that it came from, whose records tell data, scores and versions; None: only
            what ``loaded`` knows.
    """
    raise NotImplementedError
