"""A network with its image processor, loaded from a run, a release, a folder or the Hub."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedModel
from transformers import logging as transformers_logging

# `from transformers import AutoImageProcessor` raises without torchvision on transformers 5.17.
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from inference.food_images import Preprocessing
from training.common.errors import UserError
from training.common.hub_errors import translated_errors
from training.common.paths import local_path, refuse_missing
from training.model.weights import refuse_pickle, refuse_untrained

# What `from_pretrained` raises for files that are not there, damaged, or say what cannot be; the last
# two: a value of config.json of a wrong type, and a name in it that transformers does not know.
UNLOADABLE = (OSError, ValueError, ImportError, SafetensorError, StrictDataclassError, KeyError)


@dataclass(frozen=True)
class Network:
    """A model with the image processor that owns its evaluation transform, and their origin."""

    model: PreTrainedModel
    processor: Any  # a transformers image processor
    preprocessing: Preprocessing  # the same transform as `processor`, in uint8
    revision: str | None  # commit on the Hub; None for a folder and for a network from scratch
    license: str | None  # as the checkpoint's card names it; None where none is named or read
    head: str  # "new": its weights are not those of the checkpoint; or "kept"
    as_vit: dict[str, Any] | None = None  # how it became a ViT, see `load_as_vit`; None: it did not


def load_network(model: str | Path, revision: str | None = None) -> Network:
    """Load a finished classifier as it was saved, in float32 and for evaluation.

    Args:
        model: a folder with config.json, or a Hub id.
        revision: commit, tag or branch on the Hub; None is the newest.

    Raises:
        UserError: it cannot be loaded, its head was not trained, or its image processor does something
            unknown.
    """
    network, lacking = load_classifier(str(model), revision)
    refuse_untrained(network, str(model), lacking)
    processor = load_pretrained(AutoImageProcessor, str(model), revision)
    commit = commit_of(str(model), revision)
    return Network(
        network.eval(), processor, preprocessing_of(processor, str(model)), commit, None, "kept"
    )


def load_classifier(
    model_id: str, revision: str | None, config: Any = None
) -> tuple[PreTrainedModel, list[str]]:
    """Load a network with a head, in float32, from safetensors of any precision.

    Args:
        model_id: a folder with config.json, or a Hub id.
        revision: commit, tag or branch on the Hub; None is the newest.
        config: what the network is made from; None is the files' own.

    Returns:
        The network, and the names of its parameters that the files do not give, or have in another
        shape: those were drawn at random.

    Raises:
        UserError: it cannot be loaded, or its weights are pickled.
    """
    return load_weights(AutoModelForImageClassification, model_id, revision, config)[:2]


def load_weights(
    kind: Any, model_id: str, revision: str | None, config: Any = None
) -> tuple[PreTrainedModel, list[str], list[str]]:
    """Load a network of one of transformers' automatic classes: `load_classifier` for any `kind`.

    Returns:
        The network, the names that `load_classifier` returns, and those of weights in the files that
        the network has no place for.

    Raises:
        UserError: it cannot be loaded, or its weights are pickled.
    """
    # Else transformers asks a service for safetensors, and loads them from another commit than the
    # one that is recorded.
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"
    if Path(model_id).is_dir():
        refuse_pickle(model_id, os.listdir(model_id))
    try:
        model, info = load_pretrained(
            kind,
            model_id,
            revision,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except UserError:
        if not Path(model_id).is_dir():
            refuse_pickle(model_id, _files_on_hub(model_id, revision))
        raise
    other_shapes = (name for name, *_ in info["mismatched_keys"])
    lacking = sorted({*info["missing_keys"], *other_shapes})
    return model, lacking, sorted(info["unexpected_keys"])


def _files_on_hub(model_id: str, revision: str | None) -> list[str]:
    """List the files of a Hub model; [] where the Hub does not say."""
    try:
        with translated_errors(model_id):
            return HfApi().list_repo_files(model_id, revision=revision)
    except (UserError, ValueError):  # what could not be loaded is reported in any case
        return []


def label_names_of(config: Any) -> list[str]:
    """List the labels of a transformers config in the order of their ids."""
    return [config.id2label[i] for i in sorted(config.id2label)]


def label_names_from(model: str | Path, revision: str | None = None) -> list[str]:
    """Read the labels of a folder or Hub id, in the order of their ids; no weights are loaded.

    Raises:
        UserError: there is no config to read.
    """
    return label_names_of(load_pretrained(AutoConfig, str(model), revision))


def preprocessing_of(processor: Any, model_id: str) -> Preprocessing:
    """Read the evaluation transform of an image processor; `model_id` only names it in an error.

    Raises:
        UserError: the processor does something that `Preprocessing` does not.
    """
    try:
        return Preprocessing.from_processor(processor)
    except ValueError as error:
        raise UserError(f"the image processor of {model_id} does not fit: {error}") from error


def load_pretrained(cls: Any, model_id: str, revision: str | None, **kwargs: Any) -> Any:
    """Call `from_pretrained` of one of transformers' classes, without its warnings.

    Raises:
        UserError: it cannot be loaded, with transformers' reason in one line.
    """
    try:
        with quiet_transformers():  # a new head is reported by us, in one line
            return cls.from_pretrained(model_id, revision=revision, **kwargs)
    except UNLOADABLE as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"model {model_id} cannot be loaded: {reason} (give a folder or a Hub id user/name that "
            "exists, and check the network)"
        ) from error


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Let transformers log nothing but errors inside the `with`."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)


def commit_of(model_id: str, revision: str | None) -> str | None:
    """Find the Hub commit of the files that were read, by their place in the cache.

    It is None for a local folder.
    """
    if Path(model_id).expanduser().exists():
        return None
    return Path(hf_hub_download(model_id, "config.json", revision=revision)).parent.name


def model_folder(model: str) -> Path | None:
    """Find the folder with config.json in a run or release; None where `model` is a Hub id.

    Raises:
        UserError: a folder without a model, or a path where there is nothing.
    """
    refuse_missing(model, "a run, a release folder")
    path = local_path(model)
    for folder in (path, path / "model"):
        if (folder / "config.json").is_file():
            return folder
    if path.exists():
        raise UserError(
            f"{model} holds no model: give a finished run, a release folder or a Hub id"
        )
    return None
