"""A model as programs that run with jax alone: StableHLO, parameters, and what goes in and out.

::

    export.json               inputs, outputs, platforms, vocabulary, sha256 of every file
    parameters.npz            every parameter by name, float32
    8x128.stablehlo           the forward pass for 8 rows of 128 tokens; anyx128: of any number
    tokenizer/...             the vocabulary's files

Parameters stand beside the programs and are handed to them: one copy serves every batch size, and
a program is a few hundred kilobytes. Nothing of this package is needed to run one::

    import jax, jax.export, numpy as np
    program = jax.export.deserialize(bytearray(open("8x128.stablehlo", "rb").read()))
    parameters = dict(np.load("parameters.npz"))
    found = program.call(parameters, tokens, segments, valid)   # {"hidden": [8, 128, D], ...}

``tokens`` and ``segments`` are int32 [B, T], ``valid`` is bool [B, T], true where there is a token.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from bert_variants import config
from bert_variants.convert.errors import ConvertError
from bert_variants.convert.files import check_absent, check_room, make_folder, staged
from bert_variants.convert.paths import plain
from bert_variants.loaded import Loaded
from bert_variants.models import network
from bert_variants.train import leaves
from bert_variants.types import Batch, Leaf, Outputs

ABOUT, PARAMETERS, TOKENIZER = "export.json", "parameters.npz", "tokenizer"
PLATFORMS = ("cpu", "cuda", "tpu")
ANY = 0  # a batch of any number of rows
FORMAT = 1

INPUTS = {
    "tokens": ("int32", "ids, special tokens included"),
    "segments": ("int32", "0 for the first text of a row, 1 for the second; 0 at padding"),
    "valid": ("bool", "true where there is a token, false at padding"),
}


def export(
    model: Loaded,
    folder: str | Path,
    *,
    batches: Sequence[int],
    length: int,
    precision: Literal["float32", "bfloat16"] = "float32",
    platforms: Sequence[str] = PLATFORMS,
) -> list[Path]:
    """Write the forward pass of a model, as the module says.

    What it returns is what the model gives for text without masked positions: ``hidden`` [B, T, D],
    and ``pooled``, ``pair_logits``, ``replaced_logits``, ... where the model has them.

    Args:
        model: a run, or anything else that was loaded.
        folder: is made, whole or not at all.
        batches: rows of each program; 0: one program for any number.
        length: T of all of them.
        precision: of the matrix products; what comes out is float32.
        platforms: that the programs run on; all are in each file.

    Returns:
        The programs, in the order of ``batches``.

    Raises:
        ConvertError: sizes that the model does not take, a folder that is there already, or another
            precision than float32 on a GPU machine.
    """
    folder = Path(folder)
    _check(model, batches, length)
    if precision != "float32" and jax.default_backend() == "gpu":
        raise ConvertError(
            f"{precision} on a GPU traces its fused attention, which no other platform has. Set "
            "JAX_PLATFORMS=cpu for the export; the program runs on GPUs all the same."
        )
    check_absent([folder])
    make_folder(folder.absolute().parent)
    forward = _forward(model, precision)
    named, _ = leaves.flatten(model.params)
    parameters = {name: np.asarray(leaf) for name, leaf in named.items()}
    shapes = {n: jax.ShapeDtypeStruct(x.shape, x.dtype) for n, x in parameters.items()}
    programs = {
        f"{batch if batch != ANY else 'any'}x{length}.stablehlo": jax.export.export(
            jax.jit(forward), platforms=tuple(platforms)
        )(shapes, *_rows_of(batch, length))
        for batch in batches
    }
    files = {name: bytes(program.serialize()) for name, program in programs.items()}
    files |= {f"{TOKENIZER}/{n}": data for n, data in model.tokenizer.files().items()}
    check_room(
        folder.absolute().parent,
        sum(map(len, files.values())) + sum(x.nbytes for x in parameters.values()),
    )
    about = _about(model, programs, length, precision)
    _write(folder, files, parameters, about)
    return [folder / name for name in programs]


def read_batches(text: str) -> tuple[int, ...]:
    """Batch sizes from a command line: ``1,8`` or ``any``.

    Raises:
        ConvertError: anything else.
    """
    sizes = [part.strip() for part in text.split(",")]
    wrong = [s for s in sizes if s != "any" and not (s.isascii() and s.isdigit() and int(s) > 0)]
    if wrong or len(set(sizes)) < len(sizes):
        raise ConvertError(f"the batch sizes are {text!r}, expected such as 1,8 or any.")
    return tuple(ANY if size == "any" else int(size) for size in sizes)


def _check(model: Loaded, batches: Sequence[int], length: int) -> None:
    most = model.model.positions
    if not 1 <= length <= most:
        raise ConvertError(f"the length is {length}, the model takes 1 to {most} tokens.")
    if not batches or min(batches) < 0 or len(set(batches)) < len(batches):
        raise ConvertError(
            f"the batch sizes are {list(batches)}, expected different ones from 1 on."
        )
    wrong = [name for name in model.tokenizer.files() if plain(name)]
    if wrong:
        raise ConvertError(f"the tokenizer has files that are no plain names: {wrong}.")


def _rows_of(batch: int, length: int) -> list[jax.ShapeDtypeStruct]:
    """The inputs' shapes."""
    rows = jax.export.symbolic_shape("B")[0] if batch == ANY else batch
    return [jax.ShapeDtypeStruct((rows, length), dtype) for dtype, _ in INPUTS.values()]


def _forward(model: Loaded, precision: str) -> Any:
    """(parameters, tokens, segments, valid) -> arrays by name."""
    experiment = model.config
    run = dataclasses.replace(experiment.run, precision=precision, remat=False)
    experiment = dataclasses.replace(experiment, run=run)
    # layers are laid out as for a CPU, so that the same programs come of every machine
    net = network.build(experiment, model.network.module.vocab_size, backend="cpu")

    def forward(
        parameters: Mapping[str, Leaf], tokens_BT: Leaf, segments_BT: Leaf, valid_BT: Leaf
    ) -> dict[str, jax.Array]:
        batch = _batch(tokens_BT, segments_BT, valid_BT)
        return named_arrays(net.apply(leaves.nested(parameters), batch))

    return forward


def _batch(tokens_BT: Leaf, segments_BT: Leaf, valid_BT: Leaf) -> Batch:
    """Rows without word or unit boundaries, as ``loaded.batch_of`` makes them of numpy arrays."""
    none_BT = jnp.full_like(tokens_BT, -1)
    count_B = jnp.arange(tokens_BT.shape[0], dtype=jnp.uint32)
    return Batch(
        tokens_BT=tokens_BT,
        segments_BT=segments_BT,
        positions_BT=jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape),
        valid_BT=valid_BT,
        maskable_BT=valid_BT,
        words_BT=none_BT,
        units_BT=none_BT,
        example_id_B=count_B,
        visit_B=jnp.zeros_like(count_B),
    )


def named_arrays(outputs: Outputs) -> dict[str, jax.Array]:
    """What a model returned, in float32, by the names of ``types.Outputs`` without their shapes.

    ``hidden_BTD`` is ``hidden``. What is not one array is left out: every layer's output, and a
    memory that goes from batch to batch.
    """
    fields = {f.name: getattr(outputs, f.name) for f in dataclasses.fields(outputs)}
    return {
        name.rpartition("_")[0]: jnp.asarray(value, jnp.float32)
        for name, value in fields.items()
        if hasattr(value, "shape") and "_" in name
    }


def _about(
    model: Loaded, programs: Mapping[str, Any], length: int, precision: str
) -> dict[str, Any]:
    """What export.json says, but for the checksums."""
    first = next(iter(programs.values()))
    made = jax.tree.unflatten(first.out_tree, first.out_avals)
    vocab = model.tokenizer.vocab
    return {
        "format": FORMAT,
        "model": model.config.model,
        "step": model.step,
        "precision": precision,
        "platforms": list(first.platforms),
        "jax": jax.__version__,
        "calling_convention": first.calling_convention_version,
        "programs": list(programs),
        "parameters": PARAMETERS,
        "inputs": [
            {"name": name, "shape": ["B", length], "dtype": dtype, "is": meaning}
            for name, (dtype, meaning) in INPUTS.items()
        ],
        "outputs": [
            {"name": name, "shape": ["B", *x.shape[1:]], "dtype": x.dtype.name}
            for name, x in made.items()
        ],
        "vocabulary": {
            "kind": model.tokenizer.kind,
            "sha256": model.tokenizer.fingerprint,
            "size": vocab.size,
            "pad": vocab.pad,
            "cls": vocab.cls,
            "sep": vocab.sep,
            "mask": vocab.mask,
        },
        "config": config.to_dict(model.config),
    }


def _write(
    folder: Path, files: Mapping[str, bytes], parameters: Mapping[str, Any], about: dict[str, Any]
) -> None:
    """All files in a folder that gets its name when they are whole."""
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        make_folder(part / TOKENIZER)
        with staged() as stage:
            with stage.new(part / PARAMETERS) as file:
                np.savez(file, **parameters)
            for name, data in files.items():
                with stage.new(part / name) as file:
                    file.write(data)
        sums = {n: hashlib.sha256(data).hexdigest() for n, data in files.items()}
        with (part / PARAMETERS).open("rb") as file:
            sums[PARAMETERS] = hashlib.file_digest(file, "sha256").hexdigest()
        with staged() as stage, stage.new(part / ABOUT) as file:
            said = {**about, "sha256": dict(sorted(sums.items()))}
            file.write((json.dumps(said, indent=1, ensure_ascii=False) + "\n").encode())
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
