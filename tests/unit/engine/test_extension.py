# SPDX-License-Identifier: Apache-2.0
"""When the hooks of an extension are called, and that the trainer knows the extensions by these alone."""

import ast
import contextlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.unit.toys import tiny_network, tiny_settings
from training.common.errors import UserError
from training.engine import trainer as trainer_module
from training.engine.extension import Extension
from training.engine.extensions.averaging import MovingAverage
from training.engine.loss import Criterion
from training.engine.method import WholeNetwork
from training.engine.trainer import BaseTrainer, FoodTrainer
from training.engine.wiring import EXTENSIONS, selection_metrics
from training.input.batch import EpochSampler
from training.input.eval_images import EvalImages
from training.input.train_images import TrainImages

TWO_STEPS = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1,
             "eval_strategy": "steps", "eval_steps": 1}  # fmt: skip


class Toy(Extension):
    """Notes every hook; adds 1 to the loss, which leaves the gradients alone."""

    key, file = "toy", "toy.txt"

    def __init__(self, name: str = "", noted: list[str] | None = None) -> None:
        self.name, self.noted = name, [] if noted is None else noted
        self.training_loss: list[float] = []

    def note(self, what: str) -> None:
        self.noted.append(f"{self.name}{what}")

    def prepare(self, method) -> None:
        assert isinstance(method, WholeNetwork)
        self.note("prepare")

    def parameter_groups(self, optimizer, model) -> None:
        assert not optimizer.state  # before the first step
        self.note("parameter_groups")

    def before_forward(self, batch) -> None:
        assert batch["pixel_values"].is_floating_point()  # normalised
        self.note("before_forward")

    def loss(self, logits, batch, loss) -> torch.Tensor:
        assert logits.shape == (len(batch["labels"]), 3)
        self.note("loss")
        self.training_loss.append(loss.item())
        return loss + 1

    def after_step(self, step: int) -> None:
        self.note(f"after_step {step}")

    def before_scoring(self, step: int) -> None:
        self.note(f"before_scoring {step}")

    @contextlib.contextmanager
    def scoring(self) -> Iterator[None]:
        self.note("scoring {")
        try:
            yield
        finally:
            self.note("}")

    def save(self, folder: Path) -> None:
        assert (folder / "model.safetensors").is_file()
        (folder / self.file).touch()
        self.note(f"save {folder.name}")

    def load(self, folder: Path) -> None:
        self.note(f"load {folder.name}")

    def finish(self, loaded_best: bool) -> None:
        self.note(f"finish {loaded_best}")


@pytest.fixture
def toy_trainer(splits, tmp_path):
    """toy_trainer(extensions, offered, name, **keys) -> a trainer with these extensions alone."""

    def toy_trainer(
        extensions: list[Extension], offered: object = None, name: str = "run", **values: object
    ) -> FoodTrainer:
        settings, network = (
            tiny_settings(tmp_path / name, **{**TWO_STEPS, **values}),
            tiny_network(),
        )
        args, images = settings.training, (splits.train, network.preprocessing)
        return FoodTrainer(
            network=network,
            method=WholeNetwork(network),
            extensions=extensions,
            offered=offered,
            criterion=Criterion(),
            args=args,
            sampler=EpochSampler(len(splits.train), args.total_train_batch_size, 0),
            train_dataset=TrainImages(*images, settings.augmentation, 0, []),
            eval_dataset=EvalImages(splits.selection.dataset, network.preprocessing),
            processing_class=network.processor,
            compute_metrics=selection_metrics(),
        )

    return toy_trainer


def step(number: int) -> list[str]:
    """The hooks of one step, of the scoring after it and of the checkpoint after that."""
    return [
        "before_forward", "loss", f"after_step {number}",
        f"before_scoring {number}", "scoring {", "before_forward", "}",
        "scoring {", "}", f"save checkpoint-{number}",
    ]  # fmt: skip


def test_every_hook_has_its_moment(toy_trainer, tmp_path):
    toy = Toy()
    whole = toy_trainer([toy])
    assert toy.noted == []
    whole.train()
    start = ["prepare", "parameter_groups"]
    assert toy.noted == [*start, *step(1), *step(2), "finish True"]
    toy.noted.clear()
    whole.evaluate()  # after training no other weights are put into the model
    assert toy.noted == ["before_forward"]

    again = Toy()
    resumed = toy_trainer([again], name="resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-1"))
    assert sorted(again.noted[:3]) == sorted([*start, "load checkpoint-1"])
    assert again.noted.index("prepare") < again.noted.index("load checkpoint-1")
    assert again.noted[3:] == [*step(2), "finish True"]


def test_extensions_act_in_their_order_and_scoring_is_left_in_the_other(toy_trainer):
    noted: list[str] = []
    a, b = Toy("a ", noted), Toy("b ", noted)
    toy_trainer([a, b], max_steps=1, load_best_model_at_end=False).train()
    names = [entry.split(maxsplit=1) for entry in noted]
    scoring = [(name, what) for name, what in names if what in ("scoring {", "}")]
    assert scoring == [("a", "scoring {"), ("b", "scoring {"), ("b", "}"), ("a", "}")] * 2
    others = [(name, what) for name, what in names if what not in ("scoring {", "}")]
    assert [name for name, _ in others] == ["a", "b"] * (len(others) // 2)
    assert others[-1] == ("b", "finish False")
    # The second is given the loss that the first returned.
    assert b.training_loss == pytest.approx([loss + 1 for loss in a.training_loss])


def test_the_loss_of_extensions_is_trained_on_and_not_scored(toy_trainer):
    toy = Toy()
    trainer = toy_trainer([toy], max_steps=1, logging_steps=1)
    trainer.train()
    rows = {
        key: row[key]
        for row in trainer.state.log_history
        for key in ("loss", "eval_loss")
        if key in row
    }
    assert rows["loss"] == pytest.approx(toy.training_loss[0] + 1, abs=1e-3)
    assert rows["eval_loss"] < 2 < rows["loss"]  # about log(3) of an untrained network


@pytest.mark.parametrize("wrote", [True, False])
def test_a_checkpoint_of_an_extension_that_is_off_is_refused(toy_trainer, tmp_path, wrote):
    once = {"max_steps": 1, "eval_strategy": "no", "load_best_model_at_end": False}
    toy_trainer([Toy()] if wrote else [], **once).train()
    other = toy_trainer([] if wrote else [Toy()], {Toy: "0.5"}, "other", **once)
    out = "" if wrote else "out"
    with pytest.raises(UserError, match=f"written with{out} toy and the recipe has 0.5: resume"):
        other.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-1"))


def test_shards_are_refused_by_the_extension(toy_trainer, monkeypatch):
    monkeypatch.setattr(BaseTrainer, "is_sharded", True)
    toy_trainer([Toy()])  # does not mind
    with pytest.raises(UserError, match="ema_decay 0.9 with FSDP or DeepSpeed"):
        toy_trainer([MovingAverage(0.9)])


def test_without_hooks_nothing_happens():
    plain, loss = Extension(), torch.tensor(2.0)
    assert plain.loss(torch.zeros(1, 3), {}, loss) is loss
    batch = {"pixel_values": torch.zeros(1)}
    plain.before_forward(batch)
    assert set(batch) == {"pixel_values"}
    with plain.scoring():
        pass
    assert (plain.file, plain.draws) == (None, None)
    with pytest.raises(NotImplementedError):
        Extension.build(None, None)


FEATURES = ("ema", "lora", "mixup", "cutmix", "drop_path", "layer_decay", "erasing", "average")


def words_of(tree: ast.AST) -> set[str]:
    """Every name, attribute, argument, module and text of a file, docstrings too."""
    found = set()
    for node in ast.walk(tree):
        for field in ("id", "attr", "arg", "name", "module", "value"):
            if isinstance(word := getattr(node, field, None), str):
                found.add(word)
    return found


def named(words: set[str]) -> set[str]:
    """The features that a name or text holds as a word of its own, or as the start of one."""
    split = ["_" + re.sub("[^a-z]+", "_", word.lower()) for word in words]
    return {feature for feature in FEATURES if any(f"_{feature}" in word for word in split)}


def test_the_trainer_names_no_feature():
    source = inspect.getsource(trainer_module)
    assert named(words_of(ast.parse(source))) == set()
    assert named({"ema_decay", "self.lora", "x: mixup alpha"}) == {"ema", "lora", "mixup"}


@pytest.mark.parametrize("kind", EXTENSIONS)
def test_an_extension_that_writes_can_be_read_and_the_other_way_round(kind):
    own = vars(kind)
    assert ("save" in own) == ("load" in own) == (kind.file is not None)
    assert kind.key and "build" in own
