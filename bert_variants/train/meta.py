"""What a checkpoint says of itself, beside its arrays."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bert_variants import config, registry
from bert_variants.text.tokenizer import Tokenizer, TokenizerError
from bert_variants.train import digest, manifest
from bert_variants.train.manifest import DamagedError
from bert_variants.types import Leaf

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Meta:
    """Everything but arrays that a run needs to go on, and a model to be used.

    Attributes:
        step: steps done.
        position: where in the order of rows the next batch begins (``Position`` as one number).
        tokens: positions processed so far, padding included: rows x length, summed.
        branch: how many roll-backs the run had had.
        config: of the experiment, as ``config.to_dict`` makes it.
        tokenizer: kind, fingerprint, and its files in base64.
        store: fingerprint of the prepared text.
        versions: of what computes: python, jax, ...
        held_out: results at this step; empty if it was not evaluated.
        leaves: name -> shape, dtype and digest of every array (see train/digest.py).
    """

    step: int
    position: int
    tokens: int
    branch: int
    config: Mapping[str, Any]
    tokenizer: Mapping[str, Any]
    store: str
    versions: Mapping[str, str]
    held_out: Mapping[str, float]
    leaves: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def write(self) -> dict[str, Any]:
        """As a JSON object that carries its own sha256."""
        values = {"format": FORMAT, **dataclasses.asdict(self)}
        return {**values, "sha256": manifest.sha256_of(values)}

    @classmethod
    def read(cls, values: Any) -> Meta:
        """The inverse of ``write``.

        Raises:
            DamagedError: not such an object, changed since, or of another format.
        """
        if not isinstance(values, dict) or "sha256" not in values:
            raise DamagedError("its metadata are not those of a checkpoint of this project")
        values = dict(values)
        if values.pop("sha256") != manifest.sha256_of(values):
            raise DamagedError("its metadata are changed (their sha256 is not the one written)")
        if values.pop("format") != FORMAT:
            raise DamagedError(f"its format is not {FORMAT}, the one that this version reads")
        try:
            return cls(**values)
        except TypeError as error:
            raise DamagedError(f"its metadata are incomplete: {error}") from None

    @classmethod
    def of(cls, where: Path) -> Meta:
        """The metadata in a checkpoint's folder.

        Raises:
            DamagedError: missing or changed, or those of another step.
        """
        try:
            values = json.loads((where / "meta" / "metadata").read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise DamagedError(f"its metadata cannot be read ({error})") from None
        meta = cls.read(values)
        if str(meta.step) != where.name:
            raise DamagedError(f"its metadata are those of step {meta.step}")
        return meta

    def check(self, leaves: Mapping[str, Leaf], table: np.ndarray) -> None:
        """Compare arrays that were read with the digests made before they were written.

        Args:
            leaves: all of the checkpoint's or some.
            table: their digests now, uint32 [len(leaves), 3].

        Raises:
            DamagedError: names the first array that differs or is not finite.
        """
        bad = digest.non_finite(leaves, table)
        if bad:
            raise DamagedError(f"{bad[0]} holds values that are not finite")
        for name, found in digest.written(leaves, table).items():
            if found != self.leaves[name]:
                said = self.leaves[name]["digest"]
                raise DamagedError(f"{name} has digest {found['digest']}, {said} was saved")

    @property
    def experiment(self) -> config.Experiment:
        """The config, read back.

        Raises:
            ConfigError: a field that this version does not know.
        """
        return config.from_dict(self.config)

    @property
    def restored_tokenizer(self) -> Tokenizer:
        """The tokenizer, from its stored files.

        Raises:
            DamagedError: files that make no tokenizer, or another one.
        """
        files = {k: base64.b64decode(v) for k, v in self.tokenizer["files"].items()}
        try:
            made = registry.lookup("tokenizer", self.tokenizer["kind"])().restore(files)
        except TokenizerError as error:
            raise DamagedError(f"its tokenizer cannot be read: {error}") from None
        if made.fingerprint != self.tokenizer["fingerprint"]:
            raise DamagedError("its tokenizer's files are not those of its fingerprint")
        return made


def tokenizer_entry(tokenizer: Tokenizer) -> dict[str, Any]:
    """A tokenizer as ``Meta.tokenizer`` holds it."""
    files = {k: base64.b64encode(v).decode() for k, v in tokenizer.files().items()}
    return {"kind": tokenizer.kind, "fingerprint": tokenizer.fingerprint, "files": files}
