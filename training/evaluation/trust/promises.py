"""Make a saved model sure of itself as far as it may be: fold a temperature, settle thresholds and sets.

What comes out stands in the block of config.json (`training.model.config_block`), where the pipeline
reads it; evaluation.json holds how it turned out on the test images.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.data.splits import Split
from training.evaluation.classification import log_softmax
from training.evaluation.scoring import score
from training.evaluation.trust.abstention import TARGETS, choose_threshold, set_quantiles
from training.evaluation.trust.calibration import MIN_IMAGES, fit_temperature
from training.evaluation.trust.held_out import SELECTION, HeldOut
from training.input.eval_images import evaluation_images
from training.model.config_block import merge_block
from training.model.head import divide_scores
from training.model.network import Network


def score_held_out(
    network: Network, split: Split, batch_size: int, num_workers: int, cache_gb: float
) -> HeldOut:
    """Score a split that nothing was learned from, as the test split will be; all processes call this."""
    images = evaluation_images(split, network.preprocessing, cache_gb)
    logits = score(network, images, batch_size, num_workers)
    labels = np.asarray(split.dataset["label"][:])
    return HeldOut(logits, labels, np.asarray(split.content), SELECTION)


def settle(held_out: HeldOut, calibrate: bool) -> dict[str, Any]:
    """Compute what the held-out scores allow to promise: keys and values of the config's block.

    Args:
        held_out: scores of the model as it was saved, before anything is folded.
        calibrate: whether a temperature is wanted; too few images give none in any case.
    """
    temperature = None
    if calibrate and len(held_out) >= MIN_IMAGES:
        temperature = fit_temperature(held_out.logits, held_out.labels)
        held_out = held_out.divided(temperature)
    chances = np.exp(log_softmax(held_out.logits.astype(np.float64)))
    right = held_out.logits.argmax(1) == held_out.labels
    thresholds = {target: choose_threshold(chances.max(1), right, target) for target in TARGETS}
    return {
        "temperature": temperature,
        "held_out": {"n": len(held_out), "source": held_out.source},
        "thresholds": {f"{k:g}": found and found[0] for k, found in thresholds.items()},
        "sets": set_quantiles(chances, held_out.labels),
    }


def write_trust(folder: Path, network: Network, values: dict[str, Any]) -> None:
    """Write a saved model again, with its scores divided and the values in its config's block.

    Args:
        folder: holds the model; it is replaced whole.
        network: as `load_network` gave it from there; it is changed.
        values: as `settle` returned them.

    Raises:
        RuntimeError: the network's scores are not proportional to its head.
    """
    if values["temperature"] is not None:
        fold(network, values["temperature"])
    merge_block(network.model.config, **values)
    temporary = folder.with_name(f".{folder.name}.trust")
    shutil.rmtree(temporary, ignore_errors=True)
    network.model.save_pretrained(temporary)
    network.processor.save_pretrained(temporary)
    shutil.rmtree(folder)
    temporary.rename(folder)


def fold(network: Network, temperature: float) -> None:
    """Divide a network's scores by a temperature in its head, in place, and see on noise that it did.

    Raises:
        RuntimeError: the scores are not proportional to the head.
    """
    size = network.preprocessing
    noise = torch.rand(1, 3, size.height, size.width, generator=torch.Generator().manual_seed(0))
    noise = noise.to(network.model.device)
    with torch.inference_mode():
        before = network.model(pixel_values=noise).logits
    divide_scores(network.model, temperature)
    with torch.inference_mode():
        now = network.model(pixel_values=noise).logits * temperature
    if not torch.allclose(now, before, rtol=1e-3, atol=1e-3):
        worst = (now - before).abs().max().item()
        raise RuntimeError(
            f"a temperature in the head moves a score by {worst:.2g}: set calibrate false"
        )
