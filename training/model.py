"""The processor and the network, from a checkpoint or from scratch."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    PreTrainedModel,
    ViTConfig,
    set_seed,
)
from transformers import logging as transformers_logging

# `from transformers import AutoImageProcessor` raises without torchvision on transformers 5.17.
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from inference.food_classification import Preprocessing
from training.config import ModelArguments
from training.errors import UserError
from training.initialization import initialize_mimetic
from training.resolution import at_resolution, resize_processor


@dataclass(frozen=True)
class Network:
    """A model with the processor that owns its evaluation transform, and where both came from."""

    model: PreTrainedModel
    processor: Any
    preprocessing: Preprocessing
    revision: str | None  # commit on the Hub
    license: str | None
    head: str  # "new" or "kept"


def build_network(args: ModelArguments, label_names: list[str], seed: int) -> Network:
    """Build the classifier for `label_names`, in float32; what is new is initialised from `seed`.

    Raises:
        UserError: the checkpoint cannot be loaded, or a value does not fit.
    """
    set_seed(seed)
    build = _from_scratch if args.model is None else _from_checkpoint
    network = build(args, label_names)
    if network.head == "new":
        _scale_head(network.model, args.head_init_scale)
    _freeze_mask_token(network.model)
    return network


def load_network(model: str | Path, revision: str | None = None) -> Network:
    """Load a finished classifier (run, release or Hub id) as it was saved, in float32."""
    network = _load(
        AutoModelForImageClassification,
        str(model),
        revision,
        dtype=torch.float32,
        use_safetensors=True,
    )
    processor = _load(AutoImageProcessor, str(model), revision)
    commit = _commit(str(model), revision)
    return Network(
        network.eval(), processor, _preprocessing(processor, str(model)), commit, None, "kept"
    )


def label_names_of(config: Any) -> list[str]:
    """The labels in id order; keys of a saved id2label may be strings."""
    return [config.id2label[i] for i in sorted(config.id2label)]


def label_names_from(model: str | Path, revision: str | None = None) -> list[str]:
    """The labels of saved files, without their weights."""
    return label_names_of(_load(AutoConfig, str(model), revision))


def _from_scratch(args: ModelArguments, label_names: list[str]) -> Network:
    values = dict(args.model_config or {})
    known = set(ViTConfig().to_dict())
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "see ViTConfig in transformers"
            raise UserError(f"model_config has the unknown key {key}: {hint}")
    size = args.image_size or values.get("image_size", 224)
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
    return Network(model, processor, _preprocessing(processor, "scratch"), None, None, "new")


def _check_vit(config: ViTConfig) -> None:
    """What ViT itself would build without a word, and not as meant."""
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
    with quiet_transformers():  # says that it uses Pillow where torchvision is absent
        from transformers import ViTImageProcessor

    shape = {"height": size, "width": size}
    return ViTImageProcessor(size=shape, resample=2, image_mean=[0.5] * 3, image_std=[0.5] * 3)


def _from_checkpoint(args: ModelArguments, label_names: list[str]) -> Network:
    model_id = str(args.model)
    config = _load(AutoConfig, model_id, args.model_revision)
    commit = _commit(model_id, args.model_revision)
    processor = _load(AutoImageProcessor, model_id, args.model_revision)
    before = label_names_of(config)
    kept = set(before) == set(label_names)
    # A head for the same labels is kept, whatever their order; its rows are moved below.
    for key, value in _labels(before if kept else label_names).items():
        setattr(config, key, value)
    if hasattr(config, "custom_pipelines"):  # belongs to the files it came with, not to this model
        del config.custom_pipelines
    model = _load(
        AutoModelForImageClassification,
        model_id,
        args.model_revision,
        config=config,
        dtype=torch.float32,
        ignore_mismatched_sizes=True,
        use_safetensors=True,
    )
    if not kept and len(before) == len(label_names):  # the shapes fit, so it was loaded
        _renew_head(model)
    if kept and before != label_names:
        _reorder_head(model, [before.index(name) for name in label_names])
        for key, value in _labels(label_names).items():
            setattr(model.config, key, value)
    preprocessing = _preprocessing(processor, model_id)
    if args.image_size:
        model = at_resolution(model, args.image_size)
        if (preprocessing.height, preprocessing.width) != (args.image_size, args.image_size):
            processor = resize_processor(processor, args.image_size)
            preprocessing = _preprocessing(processor, model_id)
    head = "kept" if kept else "new"
    license_id = _license(model_id, commit)
    return Network(model, processor, preprocessing, commit, license_id, head)


def _labels(label_names: list[str]) -> dict[str, Any]:
    """The config values that describe the labels; ids are ints both ways."""
    return {
        "id2label": dict(enumerate(label_names)),
        "label2id": {name: i for i, name in enumerate(label_names)},
        "problem_type": "single_label_classification",
    }


def _preprocessing(processor: Any, model_id: str) -> Preprocessing:
    try:
        return Preprocessing.from_processor(processor)
    except ValueError as error:
        raise UserError(f"the image processor of {model_id} does not fit: {error}") from error


def _load(cls: Any, model_id: str, revision: str | None, **kwargs: Any) -> Any:
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


def _commit(model_id: str, revision: str | None) -> str | None:
    """The commit that was read, from where the cache put it; None for a local folder."""
    if Path(model_id).expanduser().exists():
        return None
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(model_id, "config.json", revision=revision)).parent.name


def _license(model_id: str, commit: str | None) -> str | None:
    if commit is None:  # a local folder
        return None
    from huggingface_hub import ModelCard
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return ModelCard.load(model_id, ignore_metadata_errors=True).data.get("license")
    except EntryNotFoundError:
        return None


def heads_of(model: PreTrainedModel) -> list[nn.Linear]:
    """The layers that score the labels: one, or two where DeiT or LeViT were distilled.

    A layer of the backbone is none of them, also where it is as wide as there are labels.

    Raises:
        UserError: no linear layer after the backbone has as many outputs.
    """
    backbone = set() if model.base_model is model else set(model.base_model.modules())
    after = [m for m in model.modules() if isinstance(m, nn.Linear) and m not in backbone]
    found = [layer for layer in after if layer.out_features == model.config.num_labels]
    if not found:
        raise UserError(
            f"{type(model).__name__} has no linear layer that scores the labels: give another model"
        )
    return found


def head_of(model: PreTrainedModel) -> nn.Linear:
    """The layer that scores the labels; the last one where there are two."""
    return heads_of(model)[-1]


def _freeze_mask_token(model: PreTrainedModel) -> None:
    """It belongs to pretraining (DINOv2, BEiT): no score depends on it, and DDP waits for gradients."""
    for name, parameter in model.named_parameters():
        if name.rsplit(".", 1)[-1] == "mask_token":
            parameter.requires_grad_(False)


def _renew_head(model: PreTrainedModel) -> None:
    for head in heads_of(model):
        nn.init.trunc_normal_(head.weight, std=getattr(model.config, "initializer_range", 0.02))
        if head.bias is not None:
            nn.init.zeros_(head.bias)


def _scale_head(model: PreTrainedModel, scale: float) -> None:
    """A head near 0 first predicts all labels alike, and sends little noise into the backbone.

    0 in ViT (https://arxiv.org/abs/2010.11929, appendix B.1.1), 0.001 in BEiT and ConvNeXt (timm's
    `head_init_scale`), which multiply weights and bias as well.
    """
    with torch.no_grad():
        for head in heads_of(model):
            for parameter in head.parameters():
                parameter.mul_(scale)


def _reorder_head(model: PreTrainedModel, rows: list[int]) -> None:
    with torch.no_grad():
        for head in heads_of(model):
            head.weight.copy_(head.weight[rows])
            if head.bias is not None:
                head.bias.copy_(head.bias[rows])
