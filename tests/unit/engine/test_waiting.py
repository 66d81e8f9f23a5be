# SPDX-License-Identifier: Apache-2.0
"""The host does not wait for the device between two logs."""

from collections import Counter

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

from training.engine.trainer import FoodTrainer

NO_CHECKPOINTS = {"save_strategy": "no", "eval_strategy": "no", "load_best_model_at_end": False}


class Waits(TorchDispatchMode):
    """Counts, by finished steps, the operations that on a GPU would wait for the device."""

    def __init__(self, trainer: FoodTrainer) -> None:
        super().__init__()
        self.trainer, self.count = trainer, Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        waits = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2")
        if func.overloadpacket.__name__ in waits:
            self.count[self.trainer.state.global_step] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("further", [{}, {"ema_decay": 0.9, "drop_path": 0.2, "layer_decay": 0.8}])
@pytest.mark.slow
def test_nothing_waits_for_the_device_between_two_logs(trainer_for, further):
    trainer = trainer_for(
        total_train_batch_size=2, per_device_train_batch_size=1, max_steps=12, logging_steps=4,
        **NO_CHECKPOINTS, **further,
    )  # fmt: skip
    with Waits(trainer) as waits:
        trainer.train()
    # Before each epoch, of 9 steps, the loader draws its seed on the host. A wait in a step would
    # be counted at the number before it: 1, 2, 3, 5, 6, 7, 10 and 11 are missing.
    assert waits.count[0] == waits.count[9] == 1
    assert set(waits.count) == {0, 4, 8, 9, 12}
