"""``tfds(...)`` on a dataset that was prepared here, and on a mocked one, without TensorFlow."""

from __future__ import annotations

import copy
import subprocess
import sys

import numpy as np
import pytest

from bert_variants import registry
from bert_variants.text.sources import SourceError
from bert_variants.text.sources import tfds as tfds_module

TEXTS = ["first", "zweites 二", "  ", "a\0b", "bad \udcff", "last"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The folder in which a small dataset lies in array_record files."""
    import tensorflow_datasets as tfds

    class TinyCorpus(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {"text": tfds.features.Text(), "number": np.int64}
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for n, text in enumerate(TEXTS):
                yield n, {"text": text.encode("utf-8", "surrogateescape"), "number": n}

    folder = tmp_path_factory.mktemp("datasets")
    TinyCorpus(data_dir=str(folder), file_format="array_record").download_and_prepare()
    tfds_module._open.cache_clear()
    yield folder
    tfds_module._open.cache_clear()


def source(name, **arguments):
    return registry.lookup("source", registry.write("tfds", {"name": name, **arguments}))()


def test_texts_and_counts(prepared):
    reading = source("tiny_corpus", data_dir=str(prepared)).documents()
    documents = list(reading)
    assert sorted(d.text for d in documents) == sorted(
        ["first", "zweites 二", "ab", "bad \ufffd", "last"]
    )
    assert len({d.id for d in documents}) == 5
    assert reading.dropped == {
        "empty document": 1,
        "control character removed": 1,
        "not UTF-8, replaced": 1,
    }


def test_parts_cover_the_records_in_order(prepared, monkeypatch):
    body = source("tiny_corpus", data_dir=str(prepared))
    whole = list(body.documents())
    monkeypatch.setattr(tfds_module, "PART", 4)
    body = copy.deepcopy(body)
    assert [(p.start, p.stop) for p in body.parts()] == [(0, 4), (4, 6)]
    assert [d for part in body.parts() for d in body.read(part)] == whole


def test_splits_folders_and_fingerprints(prepared):
    body = source("tiny_corpus", data_dir=str(prepared))
    some = source("tiny_corpus", data_dir=str(prepared), split="train[:2]")
    folder = source(str(prepared / "tiny_corpus" / "1.0.0"))
    assert sum(p.stop - p.start for p in some.parts()) == 2
    assert [d.text for d in folder.documents()] == [d.text for d in body.documents()]
    assert folder.fingerprint() == body.fingerprint() != some.fingerprint()


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("tiny_corpus", {"field": "texts"}, "no field 'texts'. Did you mean 'text'"),
        ("tiny_corpus", {"field": "number"}, "field 'number' .* expected text"),
        ("tiny_corpus", {"split": "trian"}, "Prepared splits in .*: train"),
        ("wikipedya/20230601.en", {}, "no such dataset.*wikipedia"),
        ("wikipedia/20230601.en", {}, "not prepared.*file_format='array_record'"),
        ("lm1b", {}, "not prepared.*download_and_prepare"),
    ],
)
def test_errors_say_what_to_do(prepared, name, arguments, message):
    with pytest.raises(SourceError, match=message):
        list(source(name, data_dir=str(prepared), **arguments).documents())


@pytest.mark.parametrize("name", ["lm1b", "wikipedia/20230601.en", "imdb_reviews"])
def test_a_mocked_dataset_gives_str(tmp_path, name):
    import tensorflow_datasets as tfds

    with tfds.testing.mock_data(num_examples=3):
        body = source(name, data_dir=str(tmp_path))
        assert len(list(body.documents())) == 3
        assert body.fingerprint() == body.fingerprint()
    tfds_module._open.cache_clear()


def test_neither_the_package_nor_a_source_imports_tensorflow_datasets_before_it_is_read():
    code = (
        "import sys; from bert_variants import registry;"
        "registry.lookup('source', 'tfds(\"lm1b\")')();"
        "assert 'tensorflow_datasets' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
