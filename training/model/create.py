"""A network to train, with its image processor: from a checkpoint or from scratch."""

from __future__ import annotations

import dataclasses
import difflib
import logging
from pathlib import Path
from typing import Any

import transformers
import yaml
from accelerate import PartialState
from huggingface_hub import ModelCard
from huggingface_hub.errors import EntryNotFoundError, StrictDataclassError
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    PreTrainedModel,
    ViTConfig,
    set_seed,
)

# `from transformers import AutoImageProcessor` raises without torchvision on transformers 5.17.
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from inference.food_images import Preprocessing
from training.common.errors import UserError
from training.common.paths import local_path, looks_local, refuse_missing
from training.model.arguments import ModelArguments
from training.model.as_vit import clothes_of, load_as_vit
from training.model.config_block import drop_block, merge_block
from training.model.head import renew_head, reorder_head, scale_head
from training.model.initialization import initialize_mimetic
from training.model.names import names_of
from training.model.network import (
    Network,
    commit_of,
    label_names_of,
    load_classifier,
    load_pretrained,
    preprocessing_of,
    quiet_transformers,
)
from training.model.resolution import at_resolution, resize_processor
from training.model.weights import head_is_among

logger = logging.getLogger(__name__)


def build_network(args: ModelArguments, label_names: list[str], seed: int) -> Network:
    """Build the classifier for `label_names`, in float32; what is new is initialised from `seed`.

    A head for the same labels, in whatever order, is kept and follows the order of `label_names`. Our
    block of the config is begun anew, with the names of the labels: what it said was of other weights.

    Raises:
        UserError: the checkpoint cannot be loaded, or a value does not fit.
    """
    names = names_of(label_names, args.display_names)
    set_seed(seed)
    build = _from_scratch if args.model is None else _from_checkpoint
    network = build(args, label_names)
    if network.head == "new":
        scale_head(network.model, args.head_init_scale)
    _freeze_mask_token(network.model)
    drop_block(network.model.config)
    merge_block(network.model.config, **names)
    return network


def _from_scratch(args: ModelArguments, label_names: list[str]) -> Network:
    values = dict(args.model_config or {})
    known = set(ViTConfig().to_dict())
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "see ViTConfig in transformers"
            raise UserError(f"model_config has the unknown key {key}: {hint}")
    size = values.get("image_size", 224) if args.image_size is None else args.image_size
    values["image_size"] = size
    try:
        config = ViTConfig(**values, **_labels(label_names))
        _check_vit(config)
        model = AutoModelForImageClassification.from_config(config)
        if args.weight_init == "mimetic":
            initialize_mimetic(model)
    except (StrictDataclassError, ValueError, TypeError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"model_config {values} makes no ViT: {reason}") from error
    processor = _vit_processor(size)
    return Network(model, processor, preprocessing_of(processor, "scratch"), None, None, "new")


def _check_vit(config: ViTConfig) -> None:
    """Refuse what ViT itself would build without a word, and not as meant.

    Raises:
        ValueError: a value of `config` does not fit; which one, and why.
    """
    sizes = ("image_size", "patch_size", "hidden_size", "intermediate_size", "num_hidden_layers")
    for key in (*sizes, "num_attention_heads"):
        if not isinstance(value := getattr(config, key), int) or value < 1:
            raise ValueError(f"{key} is {value}, and must be a whole number from 1 up")
    if config.num_channels != 3:
        raise ValueError(f"num_channels is {config.num_channels}, and images have 3")
    if config.image_size % config.patch_size:  # a rim of every image would never be seen
        raise ValueError(f"image_size is not a multiple of patch_size {config.patch_size}")
    if config.hidden_size % config.num_attention_heads:
        raise ValueError("hidden_size is not a multiple of num_attention_heads")


def _vit_processor(size: int) -> Any:
    with quiet_transformers():  # it says that it uses Pillow where torchvision is absent
        cls = transformers.ViTImageProcessor
    shape = {"height": size, "width": size}
    return cls(size=shape, resample=2, image_mean=[0.5] * 3, image_std=[0.5] * 3)


def _from_checkpoint(args: ModelArguments, label_names: list[str]) -> Network:
    refuse_missing(args.model, "a folder with config.json")
    model_id = str(local_path(args.model)) if looks_local(args.model) else args.model
    config = load_pretrained(AutoConfig, model_id, args.model_revision)
    commit = commit_of(model_id, args.model_revision)
    load = _load_as_it_is
    if args.as_vit and config.model_type != "vit":
        clothes_of(config, model_id)  # refuses others before anything more is downloaded
        load = _load_as_vit
    processor = load_pretrained(AutoImageProcessor, model_id, args.model_revision)
    made = load(args, model_id, config, processor, label_names)
    return dataclasses.replace(made, revision=commit, license=_license(model_id, commit))


def _load_as_it_is(
    args: ModelArguments, model_id: str, config: Any, processor: Any, label_names: list[str]
) -> Network:
    before = label_names_of(config)
    kept = set(before) == set(label_names)
    # A head for the same labels is kept, whatever their order; its rows are moved below.
    for key, value in _labels(before if kept else label_names).items():
        setattr(config, key, value)
    if hasattr(config, "custom_pipelines"):  # belongs to the files it came with, not to this model
        del config.custom_pipelines
    model, lacking = load_classifier(model_id, args.model_revision, config)
    if kept and head_is_among(model, lacking):  # the labels are there, their weights are not
        kept = False
        for key, value in _labels(label_names).items():
            setattr(model.config, key, value)
    if not kept and len(before) == len(label_names):  # the shapes fit, so it was loaded
        renew_head(model)
    if kept and before != label_names:
        reorder_head(model, [before.index(name) for name in label_names])
        for key, value in _labels(label_names).items():
            setattr(model.config, key, value)
    preprocessing = preprocessing_of(processor, model_id)
    if args.image_size is not None:
        model = at_resolution(model, args.image_size)
        processor, preprocessing = _at_size(processor, args.image_size, model_id)
    return Network(model, processor, preprocessing, None, None, "kept" if kept else "new")


def _load_as_vit(
    args: ModelArguments, model_id: str, config: Any, processor: Any, label_names: list[str]
) -> Network:
    """Load a checkpoint as the ViT that it is in other clothes, and say what was done."""
    preprocessing = preprocessing_of(processor, model_id)
    size = preprocessing.height if args.image_size is None else args.image_size
    if args.image_size is None and preprocessing.height != preprocessing.width:
        raise UserError(
            f"as_vit: the image processor of {model_id} makes {preprocessing.height} x "
            f"{preprocessing.width} pixels, and only squares are interpolated: give an image_size"
        )
    labels = _labels(label_names)
    model, done = load_as_vit(model_id, args.model_revision, config, size, labels)
    processor, preprocessing = _at_size(processor, size, model_id)
    if PartialState().is_main_process:
        logger.info("%s", _as_vit_line(model_id, done))
    return Network(model, processor, preprocessing, None, None, "new", done)


def _as_vit_line(model_id: str, done: dict[str, Any]) -> str:
    old, new = done["positions"]
    grid = f"{old} x {old}" + (
        f" interpolated to {new} x {new}" if new != old else ", as they were"
    )
    head = "; its own head is left out, a new one reads the class token" if done["head"] else ""
    return (
        f"{model_id} ({done['model_type']}) as a ViT: {done['done']}; positions {grid}; class token within "
        f"{done['difference']:.1e} of the original's{head}"
    )


def _at_size(processor: Any, image_size: int, model_id: str) -> tuple[Any, Preprocessing]:
    """Bring an image processor to a size, if it has another; with its evaluation transform."""
    preprocessing = preprocessing_of(processor, model_id)
    if (preprocessing.height, preprocessing.width) != (image_size, image_size):
        processor = resize_processor(processor, image_size)
        preprocessing = preprocessing_of(processor, model_id)
    return processor, preprocessing


def _labels(label_names: list[str]) -> dict[str, Any]:
    """Make the config values that describe the labels: id2label, label2id and problem_type."""
    return {
        "id2label": dict(enumerate(label_names)),
        "label2id": {name: i for i, name in enumerate(label_names)},
        "problem_type": "single_label_classification",
    }


def _license(model_id: str, commit: str | None) -> str | None:
    """Read the license from the checkpoint's card, README.md; None where it is not named there."""
    card = Path(model_id) / "README.md"
    if commit is None and not card.is_file():
        return None
    try:
        of = model_id if commit else card
        return ModelCard.load(of, ignore_metadata_errors=True).data.get("license")
    except (EntryNotFoundError, ValueError, yaml.YAMLError):  # no card, or none that can be read
        return None


def _freeze_mask_token(model: PreTrainedModel) -> None:
    """Freeze the mask token of DINOv2's or BEiT's pretraining.

    No score depends on it, and DDP would wait for its gradient.
    """
    for name, parameter in model.named_parameters():
        if name.rsplit(".", 1)[-1] == "mask_token":
            parameter.requires_grad_(False)
