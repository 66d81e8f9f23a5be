"""Features, the inputs of the classifier head: computed once for each image and kept.

A probe learns from them, and "not food" is a distance between them. While the network is frozen, its
head needs nothing else of an image. A feature is the input of the
last linear layer: ViT's class token after the last norm, a ResNet's or ConvNeXt's pooled map. Images
pass as in evaluation, without augmentation, and in float32 whatever the launcher's precision is, so
that the head's scores of a feature are the network's own. Features are kept beside the decoded
evaluation images, within the same `eval_cache_gb`, named by all that decides them: images,
preprocessing, weights below the head, device, versions.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch.utils.data import DataLoader, Subset
from transformers import PreTrainedModel

from training.common.errors import UserError
from training.common.machine import IMAGES_A_WORKER, device_name
from training.common.precision import full_float32
from training.common.progress import with_progress
from training.data.array_store import GB, cache_folder, open_array, size_of, store, write_array
from training.data.splits import Split
from training.input.batch import collate
from training.input.eval_images import CheckedImages, cache_key, refuse_changed
from training.model.config_block import BLOCK
from training.model.head import head_of
from training.model.network import Network

logger = logging.getLogger(__name__)

FORMAT = 1  # part of the key: raise it where a feature is computed otherwise

# Images in one forward pass, with any number of processes: another number would round otherwise.
BATCH = 64

# Fields of a network's config that do not change its features.
LABEL_FIELDS = ("id2label", "label2id", "num_labels", "problem_type")
FILE_FIELDS = ("_name_or_path", "transformers_version", "dtype", "custom_pipelines", BLOCK)


class Features(torch.utils.data.Dataset):
    """Dataset of the features and labels of a split, read a batch at a time.

    A list of keys gives {"features": float32 (batch, width), "labels": int64 (batch,)}. A key modulo
    the number of images is a position; `EpochSampler` puts the epoch above it.
    """

    def __init__(self, labels: list[int]) -> None:
        self.labels = torch.tensor(labels, dtype=torch.int64)
        self.features: torch.Tensor | None = None  # until they are computed

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, keys: list[int]) -> dict[str, torch.Tensor]:
        rows = torch.tensor(keys) % len(self)
        return {"features": self.features[rows], "labels": self.labels[rows]}


def image_features(
    network: Network, split: Split, limit_gb: float, num_workers: int
) -> torch.Tensor:
    """Compute the features of a split's images, or read them from the cache where it has them.

    All processes call this together, and share the work.

    Args:
        limit_gb: limit of the cache in GB; 0 neither reads nor keeps anything.
        num_workers: processes that decode images, on each process that computes.

    Returns:
        float32 (num_images, width), in the split's order.

    Raises:
        UserError: an image is not the one that was checked, or a feature is not finite.
    """
    found = kept_features(network, split, limit_gb)
    if found is not None:
        return torch.from_numpy(found)
    shape, path = _place(network, split)
    features = compute_features(network, split, num_workers)
    if not np.isfinite(features).all():
        raise UserError(
            f"{type(network.model).__name__} gives features of the {split.name} images that are not "
            "finite numbers: its weights are damaged, start from another model"
        )
    if limit_gb and PartialState().is_local_main_process:
        reason = store(
            path,
            shape,
            np.float32,
            limit_gb,
            lambda: write_array(path, shape, np.float32, [features]),
        )
        if not reason:
            logger.info(f"features of {len(split)} {split.name} images: kept in {path}")
        else:
            logger.warning(
                f"the features of the {len(split)} {split.name} images are not kept for the next run, "
                f"for the cache does not take their {size_of(shape, np.float32) / GB:.2g} GB: {reason}"
            )
    return torch.from_numpy(features)


def kept_features(network: Network, split: Split, limit_gb: float) -> np.ndarray | None:
    """Find a split's features in the cache; None where a process has none, or `limit_gb` is 0.

    All processes call this together. The array is float32 (num_images, width), a copy-on-write map.
    """
    shape, path = _place(network, split)
    found = open_array(path, shape, np.float32) if limit_gb else None
    if not all(gather_object([found is not None])):
        return None
    if PartialState().is_main_process:
        logger.info(f"features of {len(split)} {split.name} images: from {path}")
    return found


def _place(network: Network, split: Split) -> tuple[tuple[int, int], Path]:
    """Say the shape of a split's features, and where the cache keeps them."""
    shape = len(split), head_of(network.model).in_features
    return shape, cache_folder() / f"features-{features_key(network, split.content)}.npy"


def compute_features(network: Network, split: Split, num_workers: int) -> np.ndarray:
    """Compute the features of a split, float32 (num_images, width); every process returns all of them.

    Raises:
        UserError: an image is not the one that was checked.
    """
    state, images = PartialState(), CheckedImages(split, network.preprocessing)
    batches = np.array_split(np.arange(0, len(split), BATCH), state.num_processes)
    starts = batches[state.process_index].tolist()  # whole batches, the same in any number
    stop = min(starts[-1] + BATCH, len(split)) if starts else 0
    loader = DataLoader(
        Subset(images, range(starts[0] if starts else 0, stop)),
        batch_size=BATCH,
        num_workers=min(num_workers, len(starts) * BATCH // IMAGES_A_WORKER),
        collate_fn=collate,
        pin_memory=state.device.type == "cuda",
    )
    model = network.model.to(state.device).eval()
    own = [np.empty((0, head_of(model).in_features), np.float32)]
    # No inference_mode: BEiT keeps tensors that it makes here, and training could not use them.
    with torch.no_grad(), full_float32(), head_input(model) as seen:
        for batch in with_progress(
            loader, "computed features of", f"{split.name} images", len(split)
        ):
            refuse_changed(batch["changed"].tolist(), split)
            pixels = batch["pixel_values"].to(state.device, non_blocking=True)
            model(pixel_values=network.preprocessing.normalize(pixels))
            # A copy: ViT's is a view of all tokens, which would be kept with it.
            own.append(seen.pop().cpu().numpy().copy())
    # gather_object concatenates lists in rank order; the shares are consecutive.
    features = np.concatenate(gather_object([np.concatenate(own)]))
    if len(features) != len(split):
        raise RuntimeError(f"{len(features)} images have features, not {len(split)}")
    return features


@contextlib.contextmanager
def head_input(model: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """Yield a list to which every forward pass inside the block appends what entered the head."""
    seen: list[torch.Tensor] = []
    hook = head_of(model).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        hook.remove()


def check_head(network: Network, purpose: str, cure: str) -> None:
    """Refuse a network whose scores are more than one linear layer on its feature.

    Args:
        purpose, cure: what it is for, and what to do without: "a linear probe", "give another model".

    Raises:
        UserError: the network's scores are something else; the message names its class.
    """
    model, size = network.model, network.preprocessing
    was_training = model.training
    noise = torch.rand(2, 3, size.height, size.width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), full_float32(), head_input(model.eval()) as seen:
        logits = model(pixel_values=noise.to(model.device)).logits
        fits = len(seen) == 1 and seen[0].ndim == 2
        fits = fits and torch.allclose(head_of(model)(seen[0]), logits, rtol=1e-4, atol=1e-4)
    model.train(was_training)
    if not fits:
        raise UserError(
            f"{purpose} of {type(model).__name__} is not known: its scores are not those of one "
            f"linear layer on one feature an image; {cure}"
        )


def features_key(network: Network, content: tuple[str, ...]) -> str:
    """Compute the SHA-256, in hex, of everything that decides the features; the head is left out.

    Args:
        content: a checksum of each image, in order.
    """
    model, after = network.model, ("image_mean", "image_std", "rescale_factor")
    fields = dataclasses.asdict(network.preprocessing)
    facts = {
        "format": FORMAT,
        "pixels": cache_key(content, network.preprocessing),
        "normalisation": {name: fields[name] for name in after},
        "weights": backbone_sha256(model),
        "architecture": [type(model).__name__, backbone_config(model)],
        "attention": model.config._attn_implementation,
        "transformers": version("transformers"),
        "device": device_name(),
        "batch": BATCH,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def backbone_sha256(model: PreTrainedModel) -> str:
    """Compute the SHA-256, in hex, of names and values of all parameters and buffers below the head."""
    head, digest = head_of(model), hashlib.sha256()
    (prefix,) = (f"{name}." for name, module in model.named_modules() if module is head)
    for name, tensor in sorted(model.state_dict().items()):
        if not name.startswith(prefix):
            values = tensor.detach().cpu().contiguous().numpy()
            digest.update(f"{name} {values.dtype} {values.shape}\n".encode())
            digest.update(values.data)
    return digest.hexdigest()


def backbone_config(model: PreTrainedModel) -> dict[str, Any]:
    """Return the fields of a config that decide how its weights are used: activations, epsilons, pooling."""
    left_out = {*LABEL_FIELDS, *FILE_FIELDS}
    return {k: v for k, v in model.config.to_dict().items() if k not in left_out}
