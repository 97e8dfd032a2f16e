"""``text(...)``: what is a document, and what happens with text that is not as it should be."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_variants import registry
from bert_variants.text.sources import SourceError, pieces
from bert_variants.text.sources import files as files_module
from bert_variants.text.sources import text as text_module


def source(pattern, **arguments):
    return registry.lookup(
        "source", registry.write("text", {"pattern": str(pattern), **arguments})
    )()


def texts(pattern, **arguments):
    return [d.text for d in source(pattern, **arguments).documents()]


def by_parts(body):
    """All documents, every part read on its own and the last part first."""
    found = [list(body.read(part)) for part in reversed(body.parts())]
    return [d for part in reversed(found) for d in part]


# -- what is a document ---------------------------------------------------------------------------


def test_several_files_are_a_document_each_and_a_single_file_is_split_at_blank_lines(tmp_path):
    (tmp_path / "b.txt").write_text("second\n\nstill second\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_text("third")
    (tmp_path / "a.txt").write_text("first\n")
    everything = source(tmp_path / "**" / "*.txt")
    assert [(d.id, d.text) for d in everything.documents()] == [
        ("a.txt", "first\n"),
        ("b.txt", "second\n\nstill second\n"),
        ("sub/a.txt", "third"),
    ]
    assert texts(tmp_path / "b.txt") == ["second\n", "still second\n"]
    assert texts(tmp_path / "b.txt", by="file") == ["second\n\nstill second\n"]
    assert texts(tmp_path / "b.txt", by="line") == ["second\n", "still second\n"]


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [(".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress), ("", bytes)],
)
def test_json_lines_plain_and_compressed(tmp_path, suffix, compress):
    lines = [json.dumps({"id": 1, "body": "eins"}), "", json.dumps({"body": "zwei 二\u2028x"})]
    path = tmp_path / f"x.jsonl{suffix}"
    path.write_bytes(compress("\n".join(lines).encode()))
    assert texts(path, field="body") == ["eins", "zwei 二\u2028x"]


def test_only_the_newline_byte_ends_a_line(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes("\ufeffone\u2028still\x85one\fone\vone\rone\r\ntwo\r\n\r\nthree".encode())
    assert texts(path, by="line") == ["one\u2028stilloneoneone\none\n", "two\n", "three"]
    assert texts(path) == ["one\u2028stilloneoneone\none\ntwo\n", "three"]


def test_special_spellings_are_ordinary_text(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("[MASK] <s> ##x ▁y [SEP]\n")
    assert texts(path) == ["[MASK] <s> ##x ▁y [SEP]\n"]


# -- text that is not as it should be -------------------------------------------------------------


def test_invalid_utf8_is_replaced_and_counted_per_file(tmp_path):
    (tmp_path / "good.txt").write_text("fine \ufffd\n")
    (tmp_path / "bad.txt").write_bytes(b"a\xffb \xc0\xaf \xed\xa0\x80 \xef\xbf\xbd\n")
    reading = source(tmp_path / "*.txt").documents()
    assert [d.text for d in reading] == [
        b"a\xffb \xc0\xaf \xed\xa0\x80 \xef\xbf\xbd\n".decode("utf-8", "replace"),
        "fine \ufffd\n",
    ]
    assert reading.dropped == {"not UTF-8, replaced: bad.txt": 6}


@pytest.mark.parametrize("by", ["file", "line", "blank_line"])
def test_strict_names_the_byte(tmp_path, by):
    path = tmp_path / "bad.txt"
    path.write_bytes(b"\xef\xbb\xbfok\n\nnot \xff ok\n")
    with pytest.raises(SourceError, match=r"bad\.txt: byte 11 \(0xff\)"):
        texts(path, strict=True, by=by)


def test_nul_and_control_characters_are_removed_and_counted(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(b"a\0b\x07c\td\x7f\xc2\x9fe\n")
    reading = source(path).documents()
    assert [d.text for d in reading] == ["abc\tde\n"]
    assert reading.dropped == {"control character removed": 4}


def test_lone_surrogates_spelled_in_json_are_replaced(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a\\ud800b \\ud83d\\ude00 \\u0000"}\n')
    reading = source(path).documents()
    assert [d.text for d in reading] == ["a\ufffdb 😀 "]
    assert reading.dropped == {"lone surrogate replaced": 1, "control character removed": 1}


def test_empty_files_and_blank_documents_are_counted_and_nothing_at_all_is_an_error(tmp_path):
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "b.txt").write_text("\n \n\t\n")
    (tmp_path / "c.txt").write_text("x")
    reading = source(tmp_path / "*.txt").documents()
    assert [d.text for d in reading] == ["x"]
    assert reading.dropped == {"empty file": 1, "empty document": 1}
    (tmp_path / "c.txt").unlink()
    with pytest.raises(SourceError, match=r"no document \(.*1 x empty file"):
        texts(tmp_path / "*.txt")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "x"', r"x\.jsonl:3: not JSON"),
        ("[1]", r"x\.jsonl:3: a JSON list, expected one object a line"),
        ('{"texts": "x", "id": 1}', r"x\.jsonl:3: no member 'text'\. Did you mean 'texts'\?"),
        ('{"text": ["x"]}', r"x\.jsonl:3: member 'text' is a list"),
        ("[" * 200_000, r"x\.jsonl:3: not JSON"),
    ],
)
def test_json_errors_name_file_and_line(tmp_path, line, message):
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "x"}\n\n' + line + "\n")
    with pytest.raises(SourceError, match=message):
        texts(path)


# -- files that are not as they should be ---------------------------------------------------------


def test_no_match_names_pattern_and_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError) as caught:
        source("wiki/*.txt")
    assert "wiki/*.txt" in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    (tmp_path / "wiki").mkdir()
    with pytest.raises(SourceError, match=r'is a folder.*"wiki/\*\*/\*"'):
        source("wiki")


def test_brackets_and_spaces_in_names(tmp_path, monkeypatch):
    folder = tmp_path / "my [1] texts"
    (folder / "sub").mkdir(parents=True)
    (folder / "a[2].txt").write_text("two")
    (folder / "sub" / "b.txt").write_text("b")
    monkeypatch.chdir(folder)
    assert texts("a[2].txt") == texts(folder / "a[2].txt") == ["two"]
    assert texts("./*.txt") == ["two"]
    assert [d.id for d in source("**/*.txt").documents()] == ["a[2].txt", "sub/b.txt"]
    assert [d.id for d in source("../my*/sub/*").documents()] == ["my [1] texts/sub/b.txt"]


def test_broken_links_and_vanished_files(tmp_path):
    (tmp_path / "a.txt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SourceError, match=r"a\.txt .*not a regular file"):
        source(tmp_path / "*.txt")
    (tmp_path / "a.txt").unlink()
    (tmp_path / "b.txt").write_text("x")
    body = source(tmp_path / "*.txt")
    (part,) = body.parts()
    (tmp_path / "b.txt").unlink()
    for read in (lambda: list(body.read(part)), body.fingerprint, body.parts):
        with pytest.raises(SourceError, match=r"b\.txt cannot be read: No such file"):
            read()


@pytest.mark.parametrize(
    ("suffix", "compress"), [(".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress)]
)
def test_truncated_and_damaged_archives_are_errors(tmp_path, suffix, compress):
    path = tmp_path / f"x.txt{suffix}"
    data = compress(b"".join(b"%d some text\n" % n for n in range(10_000)))
    path.write_bytes(data[:-20])
    with pytest.raises(SourceError, match=rf"x\.txt\{suffix} is (truncated|damaged)"):
        texts(path, by="line")
    path.write_bytes(b"")
    with pytest.raises(SourceError, match=rf"x\.txt\{suffix} is named"):
        texts(path)
    flip = len(data) - 6 if suffix == ".gz" else len(data) // 2  # gzip: its checksum
    path.write_bytes(data[:flip] + bytes([data[flip] ^ 0x55]) + data[flip + 1 :])
    with pytest.raises(SourceError, match=rf"x\.txt\{suffix} is damaged"):
        texts(path, by="line")


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress])
def test_a_decompression_bomb_is_refused_early(tmp_path, compress):
    path = tmp_path / ("bomb.txt.gz" if compress is gzip.compress else "bomb.txt.bz2")
    path.write_bytes(compress(b"a b " * (1 << 20)))
    reading = source(path).documents()
    with pytest.raises(SourceError, match=r"bomb\.txt\.\w+ decompresses to more than"):
        list(reading)


def test_the_absolute_cap(tmp_path, monkeypatch):
    path = tmp_path / "x.txt.gz"
    path.write_bytes(gzip.compress(bytes(range(33, 127)) * 10))
    monkeypatch.setattr(files_module, "MAX_BYTES", 100)
    with pytest.raises(SourceError, match="more than 100 bytes"):
        texts(path)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.txt", gzip.compress(b"x"), "gzip data; its name must end in .gz"),
        ("x.txt.gz", lzma.compress(b"x"), "is named .gz but begins with"),
        ("x.txt.gz", gzip.compress(gzip.compress(b"x")), "holds gzip data"),
        ("x.txt.zst", b"\x28\xb5\x2f\xfdxxxx", "zstandard"),
        ("x.txt", "text".encode("utf-16"), "UTF-16"),
        ("x.txt", b"PK\x03\x04....", "zip archive"),
        ("x.txt", b"\0" * 257 + b"ustar\x0000", "tar archive"),
        ("x.txt.gz", gzip.compress(b"name" + b"\0" * 253 + b"ustar  \0"), "tar archive"),
    ],
    ids=["gzip", "xz in gz", "gzip twice", "zstandard", "utf-16", "zip", "tar", "tar in gz"],
)
def test_first_bytes_must_fit_the_name(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SourceError, match=message):
        texts(tmp_path / name)


def test_unknown_mode(tmp_path):
    with pytest.raises(SourceError, match="by is one of auto, file"):
        source(tmp_path / "x", by="lines")


# -- size -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["file", "line", "blank_line"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_one_huge_line_is_read_in_bounded_memory(tmp_path, by, suffix):
    path = tmp_path / f"x.txt{suffix}"
    size = 12 << 20
    with gzip.open(path, "wb", 1) if suffix else path.open("wb") as file:
        for n in range(size >> 14):
            file.write((b"%07d " % (n * 7919 % 10**7)) * (1 << 11))
    tracemalloc.start()
    total, longest = 0, 0
    for document in source(path, by=by).documents():
        total += len(document.text)
        longest = max(longest, len(document.text))
        assert document.text.endswith(" ")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == size
    assert longest <= pieces.LONGEST + 2 * pieces.WINDOW
    assert peak < 6 << 20


def test_a_json_line_is_cut_too(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"text": "Wörter " * 500_000}, ensure_ascii=False))
    reading = source(path).documents()
    documents = list(reading)
    assert "".join(d.text for d in documents) == "Wörter " * 500_000
    assert [d.id for d in documents] == ["x.jsonl", *(f"x.jsonl@0+{k}" for k in (1, 2, 3))]
    assert reading.dropped == {"long document cut into pieces": 3}


@pytest.fixture
def small_pieces(monkeypatch):
    """Cuts and parts so near to each other that small inputs meet every boundary."""
    monkeypatch.setattr(pieces, "LONGEST", 16)
    monkeypatch.setattr(pieces, "WINDOW", 6)
    monkeypatch.setattr(pieces, "_FRAGMENT", 5)
    monkeypatch.setattr(text_module, "PART", 32)


LINES = st.lists(st.text(st.sampled_from("ab é二😀\r"), max_size=40), max_size=12)


@pytest.mark.parametrize("by", ["file", "line", "blank_line", "json_lines"])
def test_parts_and_cuts_change_nothing(tmp_path, small_pieces, by):
    count = iter(range(10**6))

    @settings(max_examples=150, deadline=None, database=None)
    @given(LINES)
    def check(lines):
        if by == "json_lines":
            lines = [json.dumps({"text": line}, ensure_ascii=False) for line in lines]
        data = "\n".join(lines).encode()
        path = tmp_path / f"{next(count)}.txt"
        path.write_bytes(data)
        body = source(path, by=by)
        together = list(by_parts(body))
        text_module.PART, before = 1 << 30, text_module.PART
        try:
            assert [*body.read(body.parts()[0])] == together
        finally:
            text_module.PART = before
        assert len({d.id for d in together}) == len(together)
        if by == "json_lines":
            said = [json.loads(line)["text"] for line in lines]
        else:
            said = [data.decode()]
        plain = "".join(said).translate(dict.fromkeys(map(ord, " \r\n")))
        assert "".join("".join(d.text.split()) for d in together) == plain
        assert all("\ufffd" not in d.text for d in together)

    check()


def test_large_files_become_several_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(text_module, "PART", 2 << 20)
    path = tmp_path / "x.txt"
    path.write_bytes(b"0123456789 " * 500_000)
    body = source(path, by="file")
    assert [(p.start >> 20, p.size) for p in body.parts()] == [
        (0, 2 << 20),
        (2, 2 << 20),
        (4, 5_500_000 - (4 << 20)),
    ]
    assert "".join(d.text for d in by_parts(body)) == "0123456789 " * 500_000


# -- fingerprint ----------------------------------------------------------------------------------


def test_fingerprint_follows_content_names_and_reading_but_not_place_or_date(tmp_path):
    def make(folder: Path, name="x.txt", content="words", **arguments):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(content)
        return source(tmp_path / folder / "*.txt", **arguments).fingerprint()

    base = make(Path("a"))
    assert make(Path("b")) == base
    assert make(Path("c"), by="blank_line") == base  # what "auto" means here
    others = [
        make(Path("d"), name="y.txt"),
        make(Path("e"), content="wordz"),
        make(Path("f"), by="line"),
        make(Path("g"), strict=True),
    ]
    assert len({base, *others}) == 5
