# SPDX-License-Identifier: Apache-2.0
"""How far a picture is from the food that a model was trained on, uploaded beside `food_classification`.

What enters the model's last layer is compared with the mean of each dish by one covariance for all of
them (Mahalanobis, arXiv:1807.03888); the least distance counts. Means and covariance lie in
not_food.safetensors beside the weights; what the config's block says of them:

    {"format": 1, "file": "not_food.safetensors", "sha256": ..., "score": "mahalanobis",
     "head": "classifier", "thresholds": {"0.05": 431.2, ...}, ...}

It imports the standard library, numpy, torch, safetensors and transformers only, and `food_answers`.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from transformers.utils import cached_file

try:  # as code of a repository, and in this project
    from .food_answers import short, stored_key
except ImportError:  # beside a program that has this folder on its path, as an endpoint's handler
    from food_answers import short, stored_key

FILE, FORMAT, SCORE = "not_food.safetensors", 1, "mahalanobis"
SHARE = 0.05  # of real food that is refused, unless another is asked for

# What to do where a model has nothing to compare with.
CURE = "train with `--not_food true` to have it, or leave not_food out"


class FoodDistance:
    """Squared distance of features from the nearest dish's mean.

    Args:
        arrays: `centre` (width,), the mean of all; `whitening` (width, width), whose product with a
            difference of features has the covariance 1 within a dish; `means` (num_dishes,
            width), centred and whitened.

    Raises:
        ValueError: an array is missing, has another shape or a value that is not finite.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        # float64: a distance is a small difference of large numbers, and must not depend on the batch.
        found = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
        width = found["centre"].shape if "centre" in found else ()
        shapes = {"centre": width, "whitening": 2 * width, "means": (*found_rows(found), *width)}
        if len(width) != 1 or {name: array.shape for name, array in found.items()} != shapes:
            raise ValueError(f"{FILE} does not hold centre, whitening and means that fit")
        if not all(np.isfinite(array).all() for array in found.values()):
            raise ValueError(f"{FILE} holds numbers that are not finite")
        self.centre, self.whitening, self.means = (
            found[name] for name in ("centre", "whitening", "means")
        )

    def __call__(self, features: Any) -> np.ndarray:
        """Compute float64 (n,) of features (n, width), an array or a tensor of any dtype and device."""
        if isinstance(features, torch.Tensor):
            features = features.detach().to("cpu", torch.float64).numpy()
        moved = (np.asarray(features, np.float64) - self.centre) @ self.whitening
        # A dish at a time: all differences at once would be num_dishes times the features.
        return np.min([np.square(moved - mean).sum(1) for mean in self.means], axis=0)


def found_rows(arrays: Mapping[str, np.ndarray]) -> tuple[int, ...]:
    """Return (num_dishes,) of the arrays' means; () where there are none."""
    return arrays["means"].shape[:1] if "means" in arrays else ()


# ---- what the config's block says ------------------------------------------------------------------


def threshold_of(block: Mapping[str, Any], share: bool | float) -> float:
    """Find the distance above which a picture is called no food; True is the share `SHARE`.

    Args:
        block: the config's, {} where there is none.
        share: of real food that is refused; one of those that the block has.

    Raises:
        ValueError: the model has no such threshold; the line names the value and the cure.
    """
    facts, said = block.get("not_food"), f"not_food {short(share)}"
    if not facts:
        raise ValueError(f"{said}: the model has nothing to tell it by: {CURE}")
    if (facts.get("format"), facts.get("score")) != (FORMAT, SCORE):
        raise ValueError(
            f"not_food in config.json has format {facts.get('format')!r} and score "
            f"{facts.get('score')!r}, and this code reads {FORMAT} and {SCORE!r}: use the code that "
            "came with the model, or a newer vit-food101"
        )
    thresholds = facts["thresholds"]
    key = stored_key(SHARE if share is True else share, thresholds)
    if key is None:
        raise ValueError(f"{said} is not known: give {_given(thresholds)}")
    if thresholds[key] is None:
        raise ValueError(
            f"{said}: its threshold needs more selection images than the {facts['n_held_out']} there "
            f"were: give {_given(thresholds)}"
        )
    return thresholds[key]


def _given(thresholds: Mapping[str, float | None]) -> str:
    shares = sorted((key for key, least in thresholds.items() if least is not None), key=float)
    return f"True, False, or a share of real food to refuse: {', '.join(shares) or 'there is none'}"


def distance_of(config: Any, facts: Mapping[str, Any]) -> FoodDistance:
    """Read the file beside a model's weights, from its folder or the Hub; once for each place and content.

    Args:
        config: of the loaded model; it knows where it came from, and the commit.
        facts: what its block says under "not_food".

    Raises:
        ValueError: there is no such file, or it is not the one that the block speaks of.
    """
    place = getattr(config, "_name_or_path", None), facts.get("sha256")
    with _LOCK:  # threads that ask at the same time wait for the one that reads
        if place not in _READ:
            _READ[place] = _read(config, facts.get("sha256"))
        return _READ[place]


_LOCK, _READ = threading.RLock(), {}


def file_of(config: Any) -> Path:
    """Find the file beside a model's weights, in its folder or on the Hub.

    Raises:
        ValueError: it is not there, or the Hub is not reached.
    """
    source, revision = (getattr(config, key, None) for key in ("_name_or_path", "_commit_hash"))
    path, why = Path(source or "") / FILE, None
    if source and not path.parent.is_dir():
        try:
            path = Path(cached_file(source, FILE, revision=revision))
        except OSError as error:
            why = error
    if not source or not path.is_file():
        raise ValueError(
            f"{FILE} is not beside the weights in {source!r}, or cannot be fetched: load the model from "
            "the folder or repository that has it"
        ) from why
    return path


def _read(config: Any, digest: str | None) -> FoodDistance:
    path = file_of(config)
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(f"{path} is not the file that config.json speaks of: get both again")
    return FoodDistance(safetensors.numpy.load(data))


# ---- what enters the head --------------------------------------------------------------------------

# One for all models, so that a model with a hook can be copied and pickled.
_SEEN = threading.local()


@contextlib.contextmanager
def entering(model: torch.nn.Module, head: str) -> Iterator[list[torch.Tensor]]:
    """Yield a list that takes what enters the layer `head` in forward passes of this thread."""
    layer = model.get_submodule(head)
    with _LOCK:
        if _keep not in layer._forward_pre_hooks.values():
            layer.register_forward_pre_hook(_keep)  # and stays: others may be iterating over them
    _SEEN.list = []
    try:
        yield _SEEN.list
    finally:
        del _SEEN.list


def _keep(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    if (seen := getattr(_SEEN, "list", None)) is not None:
        seen.append(inputs[0])
