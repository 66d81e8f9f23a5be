# SPDX-License-Identifier: Apache-2.0
"""A training step of FoodTrainer against a bare torch loop, ViT-Ti at 224 pixels, batch 16.

    python benchmarks/trainer_step.py --json benchmarks/results/trainer_step.json

One `FoodTrainer.train()` runs; after every block of its steps a callback runs a block of the bare
loop on a copy of the model, with the same optimizer, decay groups and clipping. So both see the same
phases of the machine, and Trainer's logging, callbacks and batch fetching are inside its time.
Two clocks read the same blocks: wall time, and process time summed over the threads, which a busy
machine disturbs less. The bare loop's batches are float tensors that are ready; FoodTrainer collates, flips and
normalises uint8 items, in the process itself (no workers), as its input stage always does.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from typing import Any

import torch
from common import TOY, VIT_TI, Group, build, clocks, parser, report, since
from machine import environment
from transformers import TrainerCallback

from training.engine.loss import Criterion
from training.engine.method import WholeNetwork
from training.engine.trainer import FoodTrainer
from training.engine.training_arguments import FineTuningArguments
from training.input.batch import EpochSampler, collate, to_model_input

PEER = "bare torch loop"


class Ready(torch.utils.data.Dataset):
    """Items as TrainImages gives them, decoded before."""

    def __init__(self, count: int, size: int, num_labels: int) -> None:
        generator = torch.Generator().manual_seed(0)
        shape = (3, size, size)
        self.items = [
            {
                "pixel_values": torch.randint(
                    0, 256, shape, generator=generator, dtype=torch.uint8
                ),
                "labels": i % num_labels,
                "flip": i % 2 == 0,
            }
            for i in range(count)
        ]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: int) -> dict[str, Any]:
        return self.items[key % len(self.items)]


class BareLoop:
    """Forward, loss, backward, clip, step; nothing else."""

    def __init__(self, trainer: FoodTrainer, batches: list[dict[str, torch.Tensor]]) -> None:
        self.model = copy.deepcopy(trainer.model).train()
        kind, options = FoodTrainer.get_optimizer_cls_and_kwargs(trainer.args)
        decayed = set(trainer.get_decay_parameter_names(self.model))
        named = list(self.model.named_parameters())
        matrices = [p for name, p in named if name in decayed]
        others = [p for name, p in named if name not in decayed]
        groups = [
            {"params": matrices, "weight_decay": trainer.args.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimizer = kind(groups, **options)
        self.batches, self.step = batches, 0
        self.max_norm = trainer.args.max_grad_norm

    def run(self, steps: int) -> None:
        for _ in range(steps):
            batch = self.batches[self.step % len(self.batches)]
            logits = self.model(pixel_values=batch["pixel_values"]).logits
            torch.nn.functional.cross_entropy(logits, batch["labels"]).backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.max_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.step += 1


class Alternate(TrainerCallback):
    """After every block of Trainer's steps, one block of the bare loop; the first pair warms up."""

    def __init__(self, bare: BareLoop, block: int) -> None:
        self.bare, self.block = bare, block
        self.trainer_seconds: list[dict[str, float]] = []
        self.bare_seconds: list[dict[str, float]] = []
        self.started = clocks()

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self.started = clocks()

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if state.global_step % self.block == 0:
            self.trainer_seconds.append(since(self.started))
            started = clocks()
            self.bare.run(self.block)
            self.bare_seconds.append(since(started))
            self.started = clocks()


def main(argv: list[str] | None = None) -> int:
    p = parser(__doc__, rounds=10)
    p.add_argument("--block", type=int, default=3, help="steps in one block")
    args = p.parse_args(argv)
    batch, config = (4, TOY) if args.toy else (16, VIT_TI)
    start = environment()
    network = build(config)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(network, folder, batch, args.block, args.rounds + 1)
        items = trainer.train_dataset.items
        ready = [
            to_model_input(collate(items[i : i + batch]), network.preprocessing)
            for i in range(0, len(items), batch)
        ]
        alternate = Alternate(BareLoop(trainer, ready), args.block)
        trainer.add_callback(alternate)
        trainer.train()
    seconds = {PEER: alternate.bare_seconds[1:], "FoodTrainer": alternate.trainer_seconds[1:]}
    group = Group(f"step of {batch} images", PEER, "step", args.block, clocks=("wall", "cpu"))
    rows = group.rows(seconds)
    return report(
        args,
        start,
        rows,
        model=config,
        attention=network.model.config._attn_implementation,
        optimizer=str(trainer.args.optim.value),
    )


def make_trainer(network: Any, folder: str, batch: int, block: int, rounds: int) -> FoodTrainer:
    size = network.preprocessing.height
    items = Ready(4 * batch, size, num_labels=101)
    arguments = FineTuningArguments(
        output_dir=folder,
        max_steps=block * rounds,
        total_train_batch_size=batch,
        dataloader_num_workers=0,
        use_cpu=True,
        logging_steps=block,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
        report_to=["none"],
    )
    return FoodTrainer(
        network=network,
        method=WholeNetwork(network),
        criterion=Criterion(),
        args=arguments,
        sampler=EpochSampler(len(items), batch, seed=0),
        train_dataset=items,
    )


if __name__ == "__main__":
    sys.exit(main())
