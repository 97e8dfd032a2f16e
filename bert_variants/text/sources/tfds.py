"""A dataset of tensorflow-datasets, read at random without TensorFlow.

It must have been prepared once, in a format that can be read at random; large ones are prepared
elsewhere and copied. Corpora whose builders need Apache Beam say so themselves::

    import tensorflow_datasets as tfds, tensorflow_datasets.text
    tfds.builder("lm1b", file_format="array_record").download_and_prepare()
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

from bert_variants.registry import register, write
from bert_variants.text.sources import (
    EMPTY,
    REVISION,
    Document,
    Part,
    Reading,
    Source,
    SourceError,
    clean,
)
from bert_variants.text.sources.pieces import CUT, cut_text

PART = 1 << 14  # records
_REPLACED = "not UTF-8, replaced"


@register("source")
def tfds(name: str, *, split: str = "train", field: str = "text", data_dir: str = "") -> Source:
    """The texts of a prepared dataset, one record a document.

    Args:
        name: such as "lm1b" or "wikipedia/20230601.en"; or the folder of a prepared dataset.
        split: such as "train", "train[:10%]" or "train+validation".
        field: the feature that holds the text.
        data_dir: where datasets are kept; empty: where tensorflow-datasets keeps them.
    """
    return Tfds(name, split, field, data_dir)


@dataclasses.dataclass(frozen=True)
class Tfds(Source):
    """See ``tfds``. Nothing is opened before the first question.

    Raises (from every method):
        SourceError: an unknown or unprepared dataset, split or field; a field without text.
    """

    name: str
    split: str
    field: str
    data_dir: str

    def __str__(self) -> str:
        return write("tfds", dataclasses.asdict(self))

    def parts(self) -> list[Part]:
        records = len(_open(self)[1])
        starts = range(0, records, PART)
        return [
            Part(f"{self.name}:{self.split}", a, min(a + PART, records), min(PART, records - a))
            for a in starts
        ]

    def read(self, part: Part) -> Reading:
        return Reading(lambda dropped: self._documents(part, dropped))

    def fingerprint(self) -> str:
        """Over the dataset's files, the other splits' included."""
        digest = hashlib.sha256(f"{REVISION} tfds {self.split!r} {self.field!r}".encode())
        folder = _open(self)[0].data_path
        digest.update(str(_open(self)[0].info.full_name).encode())
        for path in sorted(folder.iterdir(), key=lambda p: p.name) if folder.exists() else []:
            with path.open("rb") as file:
                digest.update(f"\0{path.name}\0".encode())
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def _documents(self, part: Part, dropped: Counter[str]) -> Iterator[Document]:
        data = _open(self)[1]
        for k in range(part.start, part.stop):
            text = clean(self._text(k, data[k], dropped), dropped)
            if not text.strip():
                dropped[EMPTY] += 1
                continue
            for n, piece in enumerate(cut_text(text)):
                dropped.update({CUT: 1} if n else {})
                yield Document(f"{part.name}@{k}" + (f"+{n}" if n else ""), piece)

    def _text(self, k: int, record: dict[str, Any], dropped: Counter[str]) -> str:
        """The text of a record: bytes as read from the disk, str from a mocked dataset."""
        if self.field not in record:
            close = difflib.get_close_matches(self.field, record, n=1, cutoff=0.5)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise SourceError(f"{self}: no field {self.field!r}.{hint} Found: {', '.join(record)}.")
        value = record[self.field]
        if isinstance(value, str):
            return value
        if not isinstance(value, bytes):
            raise SourceError(
                f"{self}: field {self.field!r} of record {k} is a {type(value).__name__}, "
                "expected text."
            )
        text = value.decode("utf-8", errors="replace")
        found = text.count("\ufffd") - value.count("\ufffd".encode())
        if found:
            dropped[_REPLACED] += found
        return text


@functools.lru_cache(maxsize=8)
def _open(source: Tfds) -> tuple[Any, Any]:
    """(builder, data source)."""
    import tensorflow_datasets as datasets
    import tensorflow_datasets.text  # registers wikipedia, c4 and others, which are not found else
    from etils import epath

    folder = source.data_dir or None
    try:
        if (epath.Path(source.name) / "dataset_info.json").exists():
            builder = datasets.builder_from_directory(source.name)
        else:
            builder = datasets.builder(source.name, data_dir=folder)
    except datasets.core.DatasetNotFoundError as error:
        near = [line for line in str(error).split("\n") if "Did you mean" in line]
        raise SourceError(
            f"{source}: no such dataset, and none of that name was prepared. {' '.join(near)}"
        ) from None
    try:
        return builder, builder.as_data_source(split=source.split)
    except (KeyError, ValueError, AssertionError, NotImplementedError, OSError) as error:
        splits = ", ".join(builder.info.splits) or "none: it was not prepared"
        raise SourceError(
            f"{source} cannot be read ({str(error).strip(chr(34)).split(chr(10))[0]}). Prepared "
            f"splits in {builder.data_path}: {splits}. Prepare it once: import "
            "tensorflow_datasets as tfds, tensorflow_datasets.text; "
            f"tfds.builder({source.name!r}, data_dir={folder!r}, file_format='array_record')"
            ".download_and_prepare()"
        ) from None
