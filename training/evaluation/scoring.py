"""Run a network over evaluation images: logits in float32, on any number of processes.

In the same pass: how far the images are from the food that the network was trained on, where it is
known what that is.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch.utils.data import DataLoader, Subset

from inference.food_distance import FoodDistance, entering
from training.common.precision import full_float32
from training.common.progress import with_progress
from training.input.batch import collate
from training.input.eval_images import CachedImages, EvalImages
from training.model.network import Network


def score(
    network: Network, images: EvalImages | CachedImages, batch_size: int, num_workers: int
) -> np.ndarray:
    """Compute float32 logits (num_images, num_classes): each image once, in order, on every process.

    All processes call this together, each scores its share.

    Args:
        batch_size: images at once on each process.
        num_workers: processes that decode beside each process; cached images are read without any.

    Raises:
        RuntimeError: the shares of the processes do not add up to the images.
    """
    return score_and_measure(network, images, batch_size, num_workers, None, "")[0]


def score_and_measure(
    network: Network,
    images: EvalImages | CachedImages,
    batch_size: int,
    num_workers: int,
    distance: FoodDistance | None,
    head: str,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Compute logits as `score` does, and each image's distance from food, float64 (num_images,).

    Args:
        distance: of the features that enter the layer `head`; None: no distance is computed.
        head: name of the layer.
    """
    state = PartialState()
    on_gpu = state.device.type == "cuda"
    model = network.model.to(state.device)
    with state.split_between_processes(list(range(len(images)))) as positions:
        loader = DataLoader(
            Subset(images, positions),
            batch_size=batch_size,
            num_workers=0 if isinstance(images, CachedImages) else num_workers,
            collate_fn=collate,
            pin_memory=on_gpu,
        )
        own = torch.empty((len(positions), model.config.num_labels), pin_memory=on_gpu)
        own_distances = [np.empty(0)]
        done, keep_up = 0, one_batch_ahead(state.device)
        watched = entering(model, head) if distance else contextlib.nullcontext()
        with torch.inference_mode(), full_float32(), watched as seen:
            for batch in with_progress(loader, "scored", "images", len(images)):
                pixels = batch["pixel_values"].to(state.device, non_blocking=True)
                logits = model(pixel_values=network.preprocessing.normalize(pixels)).logits
                own[done : done + len(logits)].copy_(logits, non_blocking=on_gpu)
                if distance:
                    own_distances.append(distance(seen.pop()))
                done += len(logits)
                keep_up()
        if on_gpu:
            torch.cuda.synchronize(state.device)
    # gather_object concatenates lists in rank order; the shares are consecutive.
    logits = np.concatenate(gather_object([own.numpy()]))
    if len(logits) != len(images):
        raise RuntimeError(f"{len(logits)} images were scored, not {len(images)}")
    if distance is None:
        return logits, None
    return logits, np.concatenate(gather_object([np.concatenate(own_distances)]))


def one_batch_ahead(device: torch.device) -> Callable[[], None]:
    """Make a waiter for a loop over batches: on a GPU each call waits for the batch before.

    On another device it does nothing.
    Waiting for the batch itself would let the GPU idle while the next one is read; never waiting
    would let pinned batches pile up in the host's memory.
    """
    if device.type != "cuda":
        return lambda: None
    events: deque[torch.cuda.Event] = deque()

    def wait() -> None:
        events.append(torch.cuda.Event())
        events[-1].record()
        if len(events) > 1:
            events.popleft().synchronize()

    return wait
