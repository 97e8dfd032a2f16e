"""Names that files bring stay inside the folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from bert_variants.convert.errors import MOST_SHOWN, ConvertError, check
from bert_variants.convert.paths import inside, plain

BAD = [
    "",
    ".",
    "..",
    "../x",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "C:x",
    "a\0b",
    "a\nb",
    "\ud800",
    "x" * 300,
]


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_plain_name(tmp_path, name):
    assert plain(name)
    with pytest.raises(ConvertError, match="no name of a file beside it"):
        inside(tmp_path, name, "an index")


@pytest.mark.parametrize("name", ["model.safetensors", "...", "a b", "模型.bin", "-x", "x" * 255])
def test_plain_names(tmp_path, name):
    assert plain(name) is None
    (tmp_path / name).write_bytes(b"")
    assert inside(tmp_path, name) == tmp_path / name


def test_what_is_missing_is_named_with_who_names_it(tmp_path):
    with pytest.raises(ConvertError, match=r"b.bin \(named by index.json\) is not there"):
        inside(tmp_path, "b.bin", "index.json")


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(ConvertError, match="is not a file"):
        inside(tmp_path, "a")


def test_links(tmp_path):
    outside, folder = tmp_path / "secret", tmp_path / "model"
    outside.write_bytes(b"x")
    folder.mkdir()
    (folder / "real").write_bytes(b"y")
    (folder / "fine").symlink_to("real")
    (folder / "out").symlink_to(outside)
    (folder / "round").symlink_to("round")
    (folder / "dangling").symlink_to("nothing")
    assert inside(folder, "fine").read_bytes() == b"y"
    with pytest.raises(ConvertError, match="leads out of its folder"):
        inside(folder, "out")
    with pytest.raises(ConvertError, match="cannot be read"):
        inside(folder, "round")
    with pytest.raises(ConvertError, match="is not there"):
        inside(folder, "dangling")


def test_the_folder_itself_may_be_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x").write_bytes(b"x")
    (tmp_path / "link").symlink_to("real")
    assert inside(tmp_path / "link", "x").read_bytes() == b"x"


def hub(tmp_path: Path) -> Path:
    """A hub's cache: snapshots/REVISION/model.safetensors -> ../../blobs/HASH."""
    blobs, revision = tmp_path / "models" / "blobs", tmp_path / "models" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    revision.mkdir(parents=True)
    (blobs / "f00").write_bytes(b"blob")
    (tmp_path / "models" / "other").write_bytes(b"no blob")
    (revision / "model.safetensors").symlink_to("../../blobs/f00")
    (revision / "other").symlink_to("../../other")
    return revision


def test_a_hubs_cache(tmp_path):
    revision = hub(tmp_path)
    assert inside(revision, "model.safetensors").read_bytes() == b"blob"
    with pytest.raises(ConvertError, match="leads out of its folder"):
        inside(revision, "other")


def test_an_error_lists_everything_within_reason():
    check("nothing is wrong", [])
    with pytest.raises(ConvertError) as caught:
        check("wrong", [f"problem {i}." for i in range(MOST_SHOWN + 7)])
    lines = str(caught.value).split("\n")
    assert lines[0] == "wrong:"
    assert lines[1] == "  problem 0."
    assert lines[-1] == "  and 7 more."
    assert len(lines) == MOST_SHOWN + 2
    assert isinstance(caught.value, ValueError)
