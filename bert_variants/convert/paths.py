"""Names that files bring: they stay inside the folder that the user named."""

from __future__ import annotations

from pathlib import Path

from bert_variants.convert.errors import ConvertError

LONGEST = 255  # bytes of a file name, on the file systems there are


def plain(name: str) -> str | None:
    """Why ``name`` is not a plain file name, or None if it is one.

    A plain name is one part of a path: ``model-00001-of-00002.safetensors`` is, ``../x``,
    ``/etc/x``, ``a/b``, ``a\\b``, ``C:x``, ``.``, ``..`` and the empty name are not.
    """
    if not name:
        return "it is empty"
    if any(c in name for c in "/\\:") or name in (".", ".."):
        return "it leads to another folder"
    if any(ord(c) < 32 or ord(c) == 127 for c in name):
        return "it holds control characters"
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        return "it is no text"
    return f"it has {len(encoded)} bytes, at most {LONGEST}" if len(encoded) > LONGEST else None


def inside(folder: Path, name: str, said_by: str = "") -> Path:
    """The file ``name`` of ``folder``, which must be there and lie in it.

    A symbolic link may point to where it likes inside the folder. The one way out of it is that of
    a hub's cache, where ``snapshots/REVISION/model.safetensors`` is a link into ``blobs/`` beside
    ``snapshots/``.

    Args:
        folder: that the user named.
        name: as a file says it.
        said_by: which file, for the message; "" if the name is our own.

    Raises:
        ConvertError: the name leads out of the folder, also through a link, or there is no such
            file.
    """
    by = f" (named by {said_by})" if said_by else ""
    wrong = plain(name)
    if wrong:
        raise ConvertError(
            f"{folder}: {name[:LONGEST]!r}{by} is no name of a file beside it: {wrong}."
        )
    path = folder / name
    try:
        target = path.resolve(strict=True)
        roots = [folder.resolve(strict=True)]
    except (OSError, RuntimeError) as error:  # RuntimeError: a link that points to itself
        why = "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
        raise ConvertError(f"{path}{by} {why}.") from None
    if folder.absolute().parent.name == "snapshots":
        roots.append(folder.absolute().parent.parent.resolve() / "blobs")
    if not any(target.is_relative_to(root) for root in roots):
        raise ConvertError(f"{path}{by} is a link that leads out of its folder, to {target}.")
    if not target.is_file():
        raise ConvertError(f"{path}{by} is not a file.")
    return path
