"""Weight files: their digest, those that are not read, and weights that the files did not give."""

from __future__ import annotations

import hashlib
import os
import shlex
from pathlib import Path

from transformers import PreTrainedModel

from training.common.errors import UserError
from training.common.files import sha256_file
from training.common.paths import local_path
from training.model.head import heads_of

# Weights that only a pickle holds, as transformers has always named them.
PICKLE, PICKLE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"


def weights_sha256(model: str | os.PathLike | None) -> str | None:
    """Hash the weights that transformers loads from a local folder.

    Returns:
        SHA-256 in hexadecimal digits: of model.safetensors, or of its shards' digests in the order of
        their names; None where there are none, as for a Hub id, or no `model` at all.
    """
    if model is None:
        return None
    folder = local_path(model)
    whole = folder / "model.safetensors"
    files = [whole] if whole.is_file() else sorted(folder.glob("*.safetensors"))
    digests = [sha256_file(file) for file in files]
    if len(digests) < 2:
        return digests[0] if digests else None
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def refuse_pickle(model: str, files: list[str]) -> None:
    """Refuse a model whose weights are pickled, and nothing else.

    Args:
        model: folder or Hub id.
        files: the names of its files.

    Raises:
        UserError: the line says why, and how the weights become safetensors.
    """
    pickles = [name for name in (PICKLE, PICKLE_INDEX) if name in files]
    if not pickles or any(name.endswith(".safetensors") for name in files):
        return
    on_hub = not Path(model).is_dir()
    folder = model.split("/")[-1] if on_hub else model
    download = f"`hf download {model} --local-dir {folder}`, then " if on_hub else ""
    if pickles[0] == PICKLE_INDEX:
        cure = "load and save it with from_pretrained and save_pretrained of its own class"
    else:  # weights_only: what could run code is refused, so that the conversion is safe
        source, target = f"{folder}/{PICKLE}", f"{folder}/model.safetensors"
        code = (
            "import torch, safetensors.torch as s; s.save_file({k: v.contiguous() for k, v in "
            f"torch.load({source!r}, weights_only=True).items()}}, {target!r}, {{'format': 'pt'}})"
        )
        quoted = shlex.quote(code) if set('"$`\\') & set(code) else f'"{code}"'
        cure = f"{download}python -c {quoted}"
    raise UserError(
        f"model {model} has its weights in {pickles[0].removesuffix('.index.json')} only, a pickle, "
        f"which can run code when it is loaded and is not read here: make safetensors of it once: {cure}"
    )


def head_is_among(model: PreTrainedModel, names: list[str]) -> bool:
    """Say whether a weight or bias of the head is among these names of parameters."""
    return bool(_names_of_head(model) & set(names))


def refuse_untrained(model: PreTrainedModel, name: str, lacking: list[str]) -> None:
    """Refuse a network with weights that its files did not give: transformers draws them at random.

    Args:
        model: the network.
        name: folder or Hub id, for the error.
        lacking: parameters that the files lack, or have in another shape.

    Raises:
        UserError: there are such; the line says whether they are the head's.
    """
    if not lacking:
        return
    shown = ", ".join(lacking[:3]) + (f" and {len(lacking) - 3} more" if len(lacking) > 3 else "")
    cure = f"train it first, with `food101 train RECIPE --model {name}`"
    if set(lacking) <= _names_of_head(model):
        raise UserError(
            f"model {name} has no trained head (its files do not give {shown}), and its answers "
            f"would be random: {cure}"
        )
    raise UserError(
        f"the files of model {name} do not give {shown}, as the network of its config.json needs "
        f"them, and its answers would be random: restore the files, or {cure}"
    )


def _names_of_head(model: PreTrainedModel) -> set[str]:
    ids = {id(parameter) for head in heads_of(model) for parameter in head.parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in ids}
