"""TODO."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    PreTrainedModel,
)
from transformers import logging as transformers_logging

# `from transformers import AutoImageProcessor` raises without torchvision on transformers 5.17.
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from inference.food_classification import Preprocessing
from training.common.errors import UserError


@dataclass(frozen=True)
class Network:
    """A model with the processor that owns its evaluation transform, and where both came from."""

    model: PreTrainedModel
    processor: Any
    preprocessing: Preprocessing
    revision: str | None  # commit on the Hub
    license: str | None
    head: str  # "new" or "kept"


def load_network(model: str | Path, revision: str | None = None) -> Network:
    """Load a finished classifier (run, release or Hub id) as it was saved, in float32."""
    network = load_pretrained(
        AutoModelForImageClassification,
        str(model),
        revision,
        dtype=torch.float32,
        use_safetensors=True,
    )
    processor = load_pretrained(AutoImageProcessor, str(model), revision)
    commit = commit_of(str(model), revision)
    return Network(
        network.eval(), processor, preprocessing_of(processor, str(model)), commit, None, "kept"
    )


def label_names_of(config: Any) -> list[str]:
    """The labels in id order; keys of a saved id2label may be strings."""
    return [config.id2label[i] for i in sorted(config.id2label)]


def label_names_from(model: str | Path, revision: str | None = None) -> list[str]:
    """The labels of saved files, without their weights."""
    return label_names_of(load_pretrained(AutoConfig, str(model), revision))


def preprocessing_of(processor: Any, model_id: str) -> Preprocessing:
    try:
        return Preprocessing.from_processor(processor)
    except ValueError as error:
        raise UserError(f"the image processor of {model_id} does not fit: {error}") from error


def load_pretrained(cls: Any, model_id: str, revision: str | None, **kwargs: Any) -> Any:
    try:
        with quiet_transformers():  # a new head is reported by us, in one line
            return cls.from_pretrained(model_id, revision=revision, **kwargs)
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"model {model_id} cannot be loaded: {reason} (give a folder or a Hub id user/name that "
            "exists, and check the network)"
        ) from error


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)


def commit_of(model_id: str, revision: str | None) -> str | None:
    """The commit that was read, from where the cache put it; None for a local folder."""
    if Path(model_id).expanduser().exists():
        return None
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(model_id, "config.json", revision=revision)).parent.name


def model_folder(model: str) -> Path | None:
    """The folder with config.json of a run or release; None for a Hub id.

    Raises:
        UserError: a folder without a model, or neither a folder nor a Hub id.
    """
    path = Path(model).expanduser()
    for folder in (path, path / "model"):
        if (folder / "config.json").is_file():
            return folder
    if path.exists():
        raise UserError(
            f"{model} holds no model: give a finished run, a release folder or a Hub id"
        )
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise UserError(
            f"{model} does not exist: give a run, a release folder or a Hub id user/name"
        )
    return None
