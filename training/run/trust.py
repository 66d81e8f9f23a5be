"""The stage of a run between saving and scoring: how sure the model may say that it is."""

from __future__ import annotations

import logging

import numpy as np
from accelerate import PartialState
from safetensors.numpy import load_file

from inference.food_answers import TARGET, images_needed
from training.data.splits import Splits
from training.engine.checkpoints import OUT_OF_FOLD
from training.evaluation.trust import held_out
from training.evaluation.trust.calibration import MIN_IMAGES
from training.evaluation.trust.held_out import HeldOut
from training.evaluation.trust.promises import score_held_out, settle, write_trust
from training.model.network import Network, load_network
from training.run.folder import Run

logger = logging.getLogger(__name__)


def trust(run: Run, splits: Splits) -> None:
    """Fit on held-out images what model/ may promise, and write it into its weights and config.

    selection.npz keeps the scores, as the folded model gives them. Images that are byte for byte test
    images too are left out: nothing that is reported was fitted on.
    """
    folder = run.folder / "model"
    network = load_network(folder)
    found = _held_out(run, splits, network)
    PartialState().wait_for_everyone()  # all have read the folder
    if PartialState().is_main_process:
        used = found.without(splits.test.content)
        values = settle(used, run.recipe.trust.calibrate)
        write_trust(folder, network, values)
        used.divided(values["temperature"] or 1.0).save(run.folder / "selection.npz")
        logger.info(_said(values, len(found) - len(used), run.recipe.trust.calibrate))
    PartialState().wait_for_everyone()


def _held_out(run: Run, splits: Splits, network: Network) -> HeldOut:
    """Read the scores of a cross-validation, or score the selection slice as the test split will be."""
    path = run.folder / OUT_OF_FOLD
    if path.is_file():
        saved = load_file(path)
        content = np.asarray([*splits.originals.content, *splits.selection.content])
        rows = saved["row"]
        return HeldOut(saved["logits"], saved["labels"], content[rows], held_out.OUT_OF_FOLD)
    args = run.recipe.training
    return score_held_out(
        network,
        splits.selection,
        args.per_device_eval_batch_size,
        args.dataloader_num_workers,
        run.recipe.data.eval_cache_gb,
    )


def _said(values: dict, num_equal: int, wanted: bool) -> str:
    """Say in a line what was fitted, on how many images, and what could not be."""
    n, source = values["held_out"]["n"], values["held_out"]["source"]
    where = "out-of-fold" if source == held_out.OUT_OF_FOLD else "selection"
    left = f", {num_equal} left out that are test images too" if num_equal else ""
    if values["temperature"] is not None:
        first = f"scores divided by the temperature {values['temperature']:.3f}"
    elif wanted:
        first = f"scores not calibrated: a temperature needs at least {MIN_IMAGES} images"
    else:
        first = "scores not calibrated (calibrate false)"
    if values["thresholds"][f"{TARGET:g}"] is not None:
        second = (
            f"answers above {values['thresholds'][f'{TARGET:g}']:.1%} are right in {TARGET:.0%}"
        )
    elif n < images_needed(TARGET):
        second = f'"not sure" at {TARGET:.0%} needs at least {images_needed(TARGET)}, there are {n}'
    else:
        second = f"no threshold keeps {TARGET:.0%} right"
    return f"{first}; {second} ({n} {where} images{left})"
