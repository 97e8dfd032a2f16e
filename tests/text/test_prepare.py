"""Text to a store: the same for any number of workers, resumable, and nothing lost unsaid."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from unittest import mock

import corpora
import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_variants.registry import register
from bert_variants.text import encoding, prepare, sampling, sharding
from bert_variants.text.encoding import LONGEST, PrepareError, digest, pieces_of, unit_codes
from bert_variants.text.sources import Document, Part, Reading, Source
from bert_variants.text.store import Store, StoreError
from bert_variants.text.tokenizer import Encoded
from bert_variants.text.units import Unit
from bert_variants.text.workers import WorkerError

make = prepare.prepare


@register("units")
def cats_and_dogs(text: str) -> list[Unit]:
    """Every "cat" is a unit of kind 0, every "dog" one of kind 1."""
    found = [(text.lower().find(w, i), w) for i in range(len(text)) for w in ("cat", "dog")]
    kinds = {"cat": 0, "dog": 1}
    return [Unit(a, a + 3, kinds[w]) for a, w in sorted(set(found)) if a >= 0]


class Listed(Source):
    """Documents by part; a document that says so ends the process or the job."""

    def __init__(self, parts: list[list[str]], folder: str) -> None:
        self._texts, self._folder = parts, folder

    def parts(self) -> list[Part]:
        return [Part(f"part {n}", n, n + 1, 1 << 23) for n in range(len(self._texts))]

    def read(self, part: Part) -> Reading:
        def documents(dropped):
            dropped["blank"] += 1
            for n, text in enumerate(self._texts[part.start]):
                if text == "SLEEP":
                    time.sleep(0.15 if self._marked("slow") else 0)
                    continue
                if text == "KILL" and not self._marked("spared"):
                    os.kill(os.getpid(), signal.SIGKILL)
                if text == "RAISE":
                    raise KeyError("not today")
                yield Document(f"{part.start}-{n}", text)

        return Reading(documents)

    def _marked(self, name: str) -> bool:
        return (Path(self._folder) / name).exists()

    def fingerprint(self) -> str:
        return digest(repr(self._texts)).hex()


@register("source")
def listed(folder: str) -> Source:
    """The parts that ``folder/parts.json`` lists."""
    return Listed(json.loads((Path(folder) / "parts.json").read_text()), folder)


def texts(seed: int, count: int = 12) -> list[str]:
    rng = random.Random(seed)
    return [corpora.document(rng, rng.randint(1, 6)) for _ in range(count)]


def write_parts(folder: Path, parts: list[list[str]]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "parts.json").write_text(json.dumps(parts))
    return f"listed({str(folder)!r})"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_any_number_of_workers_makes_the_same_bytes(tmp_path):
    source = write_parts(tmp_path / "in", [texts(n) for n in range(5)])
    made = [
        make(corpora.settings(tmp_path / str(n), source, workers=n, units="cats_and_dogs()"))
        for n in (1, 3)
    ]
    assert made[0].folder.name == made[1].folder.name
    assert contents(made[0].folder) == contents(made[1].folder)
    assert made[0].index.splits["train"].documents > 20


def test_how_the_source_is_cut_makes_no_difference(tmp_path):
    every = [t for n in range(4) for t in texts(n)]
    cuts = [[every], [every[:7], every[7:9], every[9:]], [[t] for t in reversed(every)]]
    stores = [
        make(corpora.settings(tmp_path / str(n), write_parts(tmp_path / f"in{n}", parts)))
        for n, parts in enumerate(cuts)
    ]
    assert len({s.fingerprint for s in stores}) == 1


def test_the_second_time_it_is_there_already(tmp_path):
    data = corpora.settings(tmp_path / "out", write_parts(tmp_path / "in", [texts(0)]))
    first = make(data)
    times = {p: p.stat().st_mtime_ns for p in first.folder.rglob("*")}
    with mock.patch.object(prepare, "_make", side_effect=AssertionError):
        again = make(data)
    assert times == {p: p.stat().st_mtime_ns for p in again.folder.rglob("*")}
    assert [p.name for p in (tmp_path / "out").iterdir()] == [first.folder.name]


def test_what_changes_the_text_changes_the_folder_and_nothing_else_does(tmp_path):
    source = write_parts(tmp_path / "in", [texts(0)])
    data = corpora.settings(tmp_path / "out", source)
    first = make(data).folder
    assert first.name.startswith("listed-wordpiece-")
    for change in ({"length": 64}, {"example": "single()"}, {"copies": 3}, {"workers": 2}):
        assert make(corpora.settings(tmp_path / "out", source, **change)).folder == first
    changes = [
        {"held_out": 0.3},
        {"tokenizer": "wordpiece(size=100)"},
        {"units": "cats_and_dogs()"},
    ]
    others = [make(corpora.settings(tmp_path / "out", source, **c)).folder for c in changes]
    write_parts(tmp_path / "in", [texts(1)])
    others.append(make(data).folder)
    assert len({first, *others}) == 5


def test_a_run_that_was_stopped_goes_on_with_what_was_finished(tmp_path):
    parts = [texts(n) for n in range(6)]
    source = write_parts(tmp_path / "in", parts)
    whole = make(corpora.settings(tmp_path / "whole", source))
    data = corpora.settings(tmp_path / "out", source)

    def stop(done, total, tokens, seconds):
        if done >= total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(data, report=stop)
    (work,) = (tmp_path / "out").iterdir()
    finished = sorted((work / "pieces").glob("*.json"))
    assert len(finished) == 3
    damaged = finished[1].with_suffix(".tokens")
    damaged.write_bytes(damaged.read_bytes()[:-2])
    with (
        mock.patch.object(prepare, "encode", wraps=encoding.encode) as encode,
        mock.patch.object(sampling, "sample", side_effect=AssertionError),  # trained already
    ):
        store = make(data)
    assert encode.call_count == 4  # three that were left, and the damaged one
    assert contents(store.folder) == contents(whole.folder)
    assert list((tmp_path / "out").iterdir()) == [store.folder]


def test_stopping_ends_the_workers(tmp_path):
    source = write_parts(tmp_path / "in", [texts(n) for n in range(4)])

    def stop(done, total, tokens, seconds):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(corpora.settings(tmp_path / "out", source, workers=2), report=stop)
    assert psutil.Process().children() == []


SCRIPT = """
import sys
sys.path[:0] = {paths!r}
import corpora, test_prepare
from bert_variants.text.prepare import prepare
settings = corpora.settings({out!r}, {source!r}, workers=2, tokenizer={tokenizer!r})
print(prepare(settings).fingerprint)
"""


def letters(folder):
    """A tokenizer that needs no training."""
    path = folder / "vocab.txt"
    tokens = [*"abcdefghijklmnopqrstuvwxyz.", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *tokens]) + "\n")
    return f"wordpiece(file={str(path)!r})"


def script(tmp_path, source, out):
    """A script without a main guard that prepares with two workers."""
    file = tmp_path / f"{out}.py"
    here = [str(Path(__file__).parent)]
    values = {"paths": here, "out": str(tmp_path / out), "source": source}
    file.write_text(SCRIPT.format(**values, tokenizer=letters(tmp_path)))
    return [sys.executable, str(file)]


@pytest.mark.slow
def test_sigkill_leaves_no_orphan_and_the_next_run_goes_on(tmp_path):
    slow = [[*texts(n), *["SLEEP"] * 4] for n in range(6)]
    source = write_parts(tmp_path / "in", slow)
    (tmp_path / "in" / "slow").touch()
    process = subprocess.Popen(script(tmp_path, source, "out"), stdout=subprocess.DEVNULL)
    pieces = tmp_path / "out"
    deadline = time.monotonic() + 60
    while not list(pieces.glob("*/pieces/*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert len(workers) == 2
    assert psutil.wait_procs(workers, timeout=10)[1] == []
    kept = list(pieces.glob("*/pieces/*.json"))
    assert 0 < len(kept) < 6
    (tmp_path / "in" / "slow").unlink()
    fast = subprocess.run(
        script(tmp_path, source, "out"), capture_output=True, text=True, timeout=120, check=True
    )
    expected = make(corpora.settings(tmp_path / "one", source, tokenizer=letters(tmp_path)))
    assert fast.stdout.strip() == expected.fingerprint


def test_a_worker_that_dies_is_named_with_its_part(tmp_path):
    source = write_parts(tmp_path / "in", [texts(0), texts(1), [*texts(2), "KILL"]])
    (tmp_path / "in" / "spared").touch()  # not while the tokenizer reads a sample
    data = corpora.settings(tmp_path / "out", source, workers=2)
    with (
        mock.patch.object(prepare, "run_jobs", side_effect=_without(tmp_path / "in" / "spared")),
        pytest.raises(WorkerError, match=r"ended by signal 9.*over listed.*part 2") as error,
    ):
        make(data)
    assert error.value.exit_code == 3
    assert psutil.Process().children() == []
    (tmp_path / "in" / "spared").touch()
    assert make(data).split("train").documents > 20


def _without(path):
    from bert_variants.text.workers import run_jobs

    def run(*arguments):
        path.unlink()
        return run_jobs(*arguments)

    return run


@pytest.mark.parametrize("workers", [1, 2])
def test_a_part_that_fails_is_named(tmp_path, workers):
    source = write_parts(tmp_path / "in", [texts(0), [*texts(2), "RAISE"]])
    data = corpora.settings(tmp_path / "out", source, workers=workers, tokenizer=letters(tmp_path))
    with pytest.raises(WorkerError, match=r"preparing listed.*part 1 failed: KeyError.*not today"):
        make(data)
    assert psutil.Process().children() == []


def test_progress_ends_at_the_end(tmp_path):
    source = write_parts(tmp_path / "in", [texts(n) for n in range(3)])
    for workers in (1, 2):
        seen = []
        data = corpora.settings(tmp_path / str(workers), source, workers=workers)
        store = make(data, report=lambda *x, seen=seen: seen.append(x))
        done, total, tokens, seconds = zip(*seen, strict=True)
        assert len(set(total)) == 1
        assert max(done) <= total[0]
        assert done[-1] == total[-1] == 3 << 23
        assert tokens[-1] == sum(s.tokens for s in store.index.splits.values())
        assert seconds[-1] > 0


def test_duplicates_are_dropped_and_counted(tmp_path):
    few = texts(0)
    again = [few[0], few[1].replace(" ", "\n"), *texts(1)]
    store = make(corpora.settings(tmp_path / "out", write_parts(tmp_path / "in", [few, again])))
    assert store.index.dropped == {"blank": 2, "duplicate document": 2}
    assert sum(s.documents for s in store.index.splits.values()) == 24


def test_documents_without_tokens_are_dropped_and_counted(tmp_path):
    parts = [[*texts(0), "\x00\x01", " \n "]]
    store = make(corpora.settings(tmp_path / "out", write_parts(tmp_path / "in", parts)))
    assert store.index.dropped["document without tokens"] == 2
    assert sum(s.documents for s in store.index.splits.values()) == 12


def test_nothing_usable_is_an_error_that_says_why(tmp_path):
    tokenizer = letters(tmp_path)
    source = write_parts(tmp_path / "in", [["\x00", "  "]])
    with pytest.raises(PrepareError, match=r"listed.*no usable document: .*2 x document without"):
        make(corpora.settings(tmp_path / "out", source, tokenizer=tokenizer))
    source = write_parts(tmp_path / "none", [])
    with pytest.raises(PrepareError, match="no usable document: it is empty"):
        make(corpora.settings(tmp_path / "out", source, tokenizer=tokenizer))
    with pytest.raises(PrepareError, match="no usable document"):
        make(corpora.settings(tmp_path / "out", source))


def test_empty_files_are_an_error(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n  \n")
    with pytest.raises(PrepareError, match=r"a\.txt.*no usable document: .*empty"):
        make(corpora.settings(tmp_path / "out", f"text('{tmp_path}/a.txt')"))


def test_nul_bytes_and_names_of_specials_are_ordinary_text(tmp_path):
    parts = [[*texts(0), "the\x00 cat [MASK] sat [SEP] over the \x00\x00river"]]
    store = make(
        corpora.settings(tmp_path / "out", write_parts(tmp_path / "in", parts), held_out=0.0)
    )
    window = store.window("train", [0])
    specials = set(store.vocab.specials) - {store.vocab.unk}
    assert not specials & set(window.tokens.tolist())
    plain = store.tokenizer.encode("the cat").ids
    strange = store.tokenizer.encode("the\x00 cat").ids
    assert strange.tolist() == plain.tolist()


def split_of(store):
    """Digest -> split: not stored, so by comparing the texts' tokens."""
    return {name: s.documents for name, s in store.index.splits.items()}


def held_out_texts(documents, share):
    rows = np.array([list(digest(t)) for t in documents], np.uint8)
    return {t for t, h in zip(documents, sharding.is_held_out(rows, share), strict=True) if h}


def test_a_document_stays_on_its_side_when_others_come():
    many = texts(0, 400)
    held = held_out_texts(many, 0.2)
    assert 40 < len(held) < 120
    assert held_out_texts(many[:200], 0.2) == held & set(many[:200])
    assert held < held_out_texts(many, 0.5)


def test_two_documents_are_enough_for_two_splits():
    for share in (0.001, 0.5, 0.999):
        assert len(held_out_texts(texts(0, 2), share)) == 1
    assert held_out_texts(texts(0, 1), 0.01) == set()
    assert held_out_texts(texts(0, 50), 0.0) == set()


def test_a_held_out_source_is_held_out_whole_and_not_trained_on(tmp_path):
    train, held = texts(0), texts(1)
    source = write_parts(tmp_path / "a", [[*train, held[3]]])
    other = write_parts(tmp_path / "b", [held, held[:2]])
    store = make(corpora.settings(tmp_path / "out", source, held_out_source=other))
    assert split_of(store) == {"train": 12, "held_out": 12}
    assert store.index.dropped["document that is also held out"] == 1
    assert store.index.dropped["duplicate document"] == 2


def test_the_sample_is_bounded_fair_and_free_of_held_out_text(tmp_path):
    many = texts(0, 300)
    source = write_parts(tmp_path / "in", [many[:100], many[100:], many[:50]])
    jobs = encoding.jobs_of(source, tmp_path, "x", 1)
    everything, said = sampling.sample(jobs, 0.2)
    assert set(everything) == set(many) - held_out_texts(many, 0.2)
    assert len(everything) == len(set(everything)) == said["documents"]
    assert said["of_documents"] == 350
    with mock.patch.object(sampling, "SAMPLE", 4000):
        some, said = sampling.sample(jobs, 0.2)
        back = encoding.jobs_of(write_parts(tmp_path / "back", [many[::-1]]), tmp_path, "x", 1)
        assert sampling.sample(back, 0.2)[0] == some
    assert 2500 < said["characters"] < 4600
    assert some == everything[: len(some)]


def test_the_index_says_what_the_tokenizer_was_trained_on(tmp_path):
    source = write_parts(tmp_path / "in", [texts(0)])
    store = make(corpora.settings(tmp_path / "out", source))
    assert store.index.trained_on["documents"] == store.split("train").documents
    assert store.tokenizer.vocab.size == 120


@given(st.text(alphabet="ab \n.", max_size=300), st.integers(5, 40))
def test_long_sentences_are_cut_at_white_space_and_nothing_is_lost(text, longest):
    with mock.patch.object(encoding, "LONGEST", longest):
        found, cuts = pieces_of(text)
    assert all(len(s) <= longest for s in found)
    kept = [c for c in "".join(found) if not c.isspace()]
    assert kept == [c for c in text if not c.isspace()]
    whole, _ = pieces_of(text)
    assert len(found) == len(whole) + cuts


def test_a_cut_is_made_at_the_last_space_that_fits():
    with mock.patch.object(encoding, "LONGEST", 8):
        assert pieces_of("aaa bbb ccc dd")[0] == ["aaa bbb", " ccc dd"]
        assert pieces_of("a" * 20)[0] == ["a" * 8, "a" * 8, "a" * 4]


def test_cuts_are_counted(tmp_path):
    parts = [[*texts(0), "word " * 9000]]
    store = make(corpora.settings(tmp_path / "out", write_parts(tmp_path / "in", parts)))
    assert store.index.altered == {f"sentence over {LONGEST} characters cut": 2}


def test_units_of_the_worked_row():
    encoded = Encoded(
        ids=np.arange(3, dtype=np.int32),
        words=np.arange(3, dtype=np.int32),
        offsets=np.array([[0, 3], [4, 8], [9, 11]], np.int32),
    )
    assert unit_codes(encoded, [Unit(0, 8, 0)]).tolist() == [129, 1, 0]
    assert unit_codes(encoded, [Unit(0, 3, 5), Unit(4, 8, 0)]).tolist() == [134, 129, 0]
    assert unit_codes(encoded, [Unit(0, 2, 0)]).tolist() == [0, 0, 0]  # cuts a token
    assert unit_codes(encoded, []).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="overlap"):
        unit_codes(encoded, [Unit(0, 8, 0), Unit(4, 8, 0)])
    with pytest.raises(ValueError, match="kind 127"):
        unit_codes(encoded, [Unit(0, 8, 127)])


def test_units_are_stored_beside_the_tokens(tmp_path):
    source = write_parts(tmp_path / "in", [texts(0)])
    store = make(corpora.settings(tmp_path / "out", source, units="cats_and_dogs()", held_out=0.0))
    window = store.window("train", [0])
    text = " ".join(texts(0)).lower()
    starts = window.units[window.units >= 0x80] & 0x7F
    assert (starts == 1).sum() == text.count("cat")
    assert (starts == 2).sum() == text.count("dog")


def test_a_lexicon_with_other_entries_is_another_store(tmp_path):
    @register("units", "test_list", files=("file",))
    def listed_units(text: str, file: str) -> list[Unit]:
        return []

    source, words = write_parts(tmp_path / "in", [texts(0)]), tmp_path / "words"
    folders = []
    for content in ("cat", "dog"):
        words.write_text(content)
        data = corpora.settings(tmp_path / "out", source, units=f"test_list({str(words)!r})")
        folders.append(make(data).folder)
    assert folders[0] != folders[1]


def test_two_processes_at_once_make_one_store(tmp_path):
    source = write_parts(tmp_path / "in", [[*texts(n), "SLEEP"] for n in range(3)])
    (tmp_path / "in" / "slow").touch()
    running = [
        subprocess.Popen(script(tmp_path, source, "out"), stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [p.communicate(timeout=120)[0].strip() for p in running]
    assert [p.returncode for p in running] == [0, 0]
    assert said[0] == said[1] != ""
    (folder,) = (tmp_path / "out").iterdir()
    assert Store.open(folder, verify="full").fingerprint == said[0]


def test_it_works_from_standard_input_and_with_entries_of_main(tmp_path):
    """As in a notebook: what the session registered is not to be imported anywhere."""
    source = write_parts(tmp_path / "in", [texts(0), texts(1)])
    code = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import corpora, test_prepare
        from bert_variants.registry import register
        from bert_variants.text.prepare import prepare

        @register("units")
        def mine(text: str) -> list:
            return []

        for units in ("", "mine()"):
            data = corpora.settings({str(tmp_path / "out")!r}, {source!r}, workers=2, units=units)
            print(prepare(data).split("train").documents)
    """
    done = subprocess.run(
        [sys.executable, "-"],
        input=textwrap.dedent(code),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = map(int, done.stdout.split())
    assert first == second > 10


def test_a_damaged_store_is_not_silently_made_again(tmp_path):
    data = corpora.settings(tmp_path / "out", write_parts(tmp_path / "in", [texts(0)]))
    folder = make(data).folder
    (folder / "train-00000.tokens").write_bytes(b"")
    with pytest.raises(StoreError, match="is cut off"):
        make(data)


def test_a_vocabulary_over_16_bits_is_stored_in_32(tmp_path):
    path = tmp_path / "large.txt"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"x{n}" for n in range(70_000))]
    path.write_text("\n".join([*tokens, *corpora.WORDS, "."]) + "\n")
    source = write_parts(tmp_path / "in", [texts(0)])
    tokenizer = f"wordpiece(file={str(path)!r})"
    store = make(corpora.settings(tmp_path / "out", source, tokenizer=tokenizer, held_out=0.0))
    window = store.window("train", [0])
    assert window.tokens.dtype == np.uint32
    assert window.tokens.min() >= 70_005
    first = store.tokenizer.decode(window.tokens[: window.sentences[1]].tolist())
    assert first.rstrip(" .") in " ".join(texts(0)).lower()


def test_real_text_english_and_chinese(tmp_path, shared_data):
    """Published vocabularies on a little of each: sizes, ids and words make sense."""
    cases = [
        ("wikipedia_en/valid*.xz", "bert_base_uncased_vocab.txt", 1.0),
        ("wikipedia_zh/valid*.xz", "bert_base_chinese_vocab.txt", 0.9),
    ]
    for pattern, vocabulary, most in cases:
        (file,) = sorted(shared_data.glob(pattern))
        tokenizer = f"wordpiece(file={str(shared_data / 'vocab' / vocabulary)!r})"
        store = make(
            corpora.settings(
                tmp_path / vocabulary, f"text({str(file)!r}, by='json_lines')", tokenizer=tokenizer
            )
        )
        split = store.split("train")
        assert 0.5 < split.words / split.tokens <= most or most == 0.9
        assert store.counts_V[store.vocab.unk] < 0.02 * split.tokens
        assert 5 < split.tokens / split.sentences < 60
        assert store.vocab.size in (30522, 21128)
