# SPDX-License-Identifier: Apache-2.0
"""A compiled step, and a step in TF32."""

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.unit.toys import (
    tiny_network,
    tiny_settings,
    train,
    write_recipe,
)
from training.common.errors import UserError
from training.common.precision import full_float32, tf32
from training.engine.compilation import trains_in_tf32
from training.engine.trainer import FoodTrainer
from training.engine.wiring import build_trainer
from training.run.record import describe_step

NO_CHECKPOINTS = {"save_strategy": "no", "eval_strategy": "no", "load_best_model_at_end": False}


def losses(trainer: FoodTrainer) -> list[float]:
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


# ---- torch.compile ----------------------------------------------------------------------------

# The `eager` and `aot_eager` backends capture graphs as inductor does, and compile nothing.


@pytest.fixture
def dynamo():
    """The counters of torch.compile, from zero; every graph is forgotten before and after."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield torch._dynamo.utils.counters
    torch._dynamo.reset()


@pytest.mark.slow
def test_a_compiled_run_is_the_same_run(dynamo, tiny_run, tiny_data, tmp_path):
    """Trained, scored between epochs, saved, the best loaded, scored again and released."""
    recipe = write_recipe(
        tmp_path / "r.yaml",
        dataset=tiny_data,
        torch_compile=True,
        torch_compile_backend="aot_eager",
    )
    train(recipe, "--output_dir", tmp_path / "run", "--per_device_eval_batch_size", "5")
    # One graph: 12 selection images are a partial last batch, and evaluation is not compiled.
    assert dynamo["stats"]["unique_graphs"] == 1 and not dynamo["graph_break"]
    runs = (tiny_run, tmp_path / "run")
    compiled = [json.loads((run / "run.json").read_text())["training"]["compile"] for run in runs]
    assert compiled == [None, {"backend": "aot_eager", "mode": "default"}]
    rows = [json.loads((run / "log_history.json").read_text()) for run in runs]
    for key in ("eval_loss", "train_loss"):
        plain, ours = ([row[key] for row in each if key in row] for each in rows)
        assert ours == pytest.approx(plain, abs=1e-5) and plain, key
    for name in ("model", "checkpoint-8", "release"):
        plain, ours = (load_file(run / name / "model.safetensors") for run in runs)
        assert set(ours) == set(plain)  # no `_orig_mod.` in front
        assert all((ours[key] - plain[key]).abs().max() < 1e-4 for key in plain), name


@pytest.mark.slow
def test_a_compiled_run_continues_from_an_uncompiled_checkpoint(dynamo, splits, tmp_path):
    def trainer_for(name: str, **values: object) -> FoodTrainer:
        settings = tiny_settings(tmp_path / name, **values)
        return build_trainer(tiny_network(num_hidden_layers=1), splits, settings)

    plain = trainer_for("plain", num_train_epochs=2, logging_steps=1)
    plain.train()
    compiled = trainer_for(
        "compiled", num_train_epochs=2, logging_steps=1, torch_compile_backend="eager",
        per_device_train_batch_size=4,
    )  # fmt: skip
    compiled.train(resume_from_checkpoint=str(tmp_path / "plain" / "checkpoint-2"))
    assert dynamo["stats"]["unique_graphs"] == 1  # accumulated batches are of one shape, too
    assert losses(compiled) == pytest.approx(
        losses(plain), abs=1e-4
    )  # steps 1 and 2 from the state
    assert len(losses(compiled)) == 4


def test_what_cannot_be_compiled_is_one_line(trainer_for):
    """Of a backend that torch does not have here; a missing C++ compiler comes the same way."""
    trainer = trainer_for(torch_compile_backend="tensorrt", **NO_CHECKPOINTS)
    with pytest.raises(
        UserError, match=r"^torch_compile failed \(.*tensorrt.*\): install .* without"
    ):
        trainer.train()


def test_compilation_asked_for_by_the_launcher_is_recorded(trainer_for, monkeypatch):
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "EAGER")
    trainer = trainer_for()
    assert not trainer.args.torch_compile
    assert describe_step(trainer)["compile"] == {"backend": "eager", "mode": "default"}
    # `food101 train` passes `--dynamo_backend no`; the recipe's key has the last word.
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "NO")
    assert describe_step(trainer_for())["compile"] is None
    trainer = trainer_for(torch_compile=True)
    assert describe_step(trainer)["compile"] == {"backend": "inductor", "mode": "default"}


# ---- TF32 -------------------------------------------------------------------------------------


def switches() -> dict[str, object]:
    """As CUDA's kernels see them; the old ones raise where they contradict the new ones."""
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    new = [op.fp32_precision == "tf32" for op in (cuda.matmul, cudnn.conv, cudnn.rnn)]
    old = [torch.get_float32_matmul_precision() != "highest", cudnn.allow_tf32]
    assert [cuda.matmul.allow_tf32, *old] == [new[0], new[0], new[1]] and new[1] == new[2]
    return {"matmul": new[0], "convolution": new[1]}


@pytest.fixture
def torch_default():
    with tf32(False):  # whatever the test leaves behind is put in order here
        torch.backends.cudnn.allow_tf32 = True
        yield
        torch.backends.fp32_precision = "none"


@pytest.mark.parametrize("general", [None, "tf32", "ieee"])
def test_tf32_is_all_or_nothing_and_given_back(torch_default, general):
    """Transformers sets `torch.backends.fp32_precision`, which torch's own switches half ignore."""
    assert switches() == {"matmul": False, "convolution": True}  # torch's own default
    if general is not None:
        torch.backends.fp32_precision = general
    with tf32(True):
        assert switches() == {"matmul": True, "convolution": True}
        with full_float32():
            assert switches() == {"matmul": False, "convolution": False}
            torch.nn.Conv2d(3, 2, 2)(torch.zeros(1, 3, 4, 4)).sum().backward()
        assert switches() == {"matmul": True, "convolution": True}
    assert switches() == {"matmul": False, "convolution": True}


def test_tf32_is_given_back_after_an_error(torch_default):
    with pytest.raises(KeyError), tf32(True):
        raise KeyError
    assert switches() == {"matmul": False, "convolution": True}


@pytest.mark.parametrize(
    ("key", "device", "ampere", "expected"),
    [
        (None, "cuda", True, True),
        (True, "cuda", True, True),
        (False, "cuda", True, False),
        (None, "cuda", False, False),
        (None, "cpu", True, False),
    ],
)
def test_training_uses_tf32_where_there_is_any(monkeypatch, key, device, ampere, expected):
    class Arguments:
        tf32 = key

    Arguments.device = torch.device(device)
    monkeypatch.setattr("training.engine.compilation.is_torch_tf32_available", lambda: ampere)
    assert trains_in_tf32(Arguments) is expected


def test_tf32_is_in_force_while_training_and_not_after(trainer_for, monkeypatch, torch_default):
    seen = []
    trainer = trainer_for(max_steps=1, **NO_CHECKPOINTS)
    compute_loss = trainer.compute_loss
    monkeypatch.setattr("training.engine.trainer.trains_in_tf32", lambda _: True)
    monkeypatch.setattr(
        trainer, "compute_loss", lambda *a, **k: seen.append(switches()) or compute_loss(*a, **k)
    )
    trainer.train()
    assert seen == [{"matmul": True, "convolution": True}]
    assert switches() == {"matmul": False, "convolution": True}
