# SPDX-License-Identifier: Apache-2.0
"""A compiled step, and a step in TF32."""

import importlib.util
import json
from types import SimpleNamespace

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
from training.engine.compilation import (
    COMPILE_MODES,
    check_compilation,
    check_compiler,
    trains_in_tf32,
)
from training.engine.trainer import FoodTrainer
from training.engine.wiring import build_trainer

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


def test_a_compiler_that_is_not_installed_is_refused_before_the_data(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", str(tmp_path / "no-g++"))
    with pytest.raises(
        UserError, match="^torch_compile needs .*no-g\\+\\+, which is not installed: "
    ):
        tiny_settings(tmp_path, torch_compile=True)
    tiny_settings(tmp_path, torch_compile=True, torch_compile_backend="eager")
    args = SimpleNamespace(
        torch_compile=True, torch_compile_backend="inductor", device=torch.device("cuda")
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="torch_compile needs triton, .*: pip install triton, or"):
        check_compiler(args)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    check_compiler(args)


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


def test_only_backends_and_modes_that_torch_knows_are_taken():
    check_compilation(None, None)
    for mode in COMPILE_MODES:
        check_compilation("inductor", mode)
    with pytest.raises(UserError, match="^torch_compile_backend is NO: give one of eager, .*indu"):
        check_compilation("NO", None)
    with pytest.raises(UserError, match="^torch_compile_mode is fast: give one of default, .*"):
        check_compilation("inductor", "fast")


def test_what_cannot_be_compiled_is_one_line(trainer_for):
    """Of a backend that torch does not have here; a missing C++ compiler comes the same way."""
    trainer = trainer_for(torch_compile_backend="tensorrt", **NO_CHECKPOINTS)
    with pytest.raises(
        UserError, match=r"^torch_compile failed \(.*tensorrt.*\): install .* without"
    ):
        trainer.train()


# ---- TF32 -------------------------------------------------------------------------------------


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


def test_training_is_in_tf32_and_what_comes_after_it_is_not(trainer_for, monkeypatch):
    def allowed() -> bool:
        return torch.backends.cuda.matmul.fp32_precision == "tf32"

    seen = []
    trainer = trainer_for(max_steps=1, **NO_CHECKPOINTS)
    compute_loss = trainer.compute_loss
    monkeypatch.setattr("training.engine.trainer.trains_in_tf32", lambda _: True)
    monkeypatch.setattr(
        trainer, "compute_loss", lambda *a, **k: seen.append(allowed()) or compute_loss(*a, **k)
    )
    assert not allowed()
    trainer.train()
    assert seen == [True] and not allowed()
