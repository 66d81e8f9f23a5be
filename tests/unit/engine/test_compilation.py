# SPDX-License-Identifier: Apache-2.0
"""How a step is computed: compiled, checkpointed, in TF32, and without waiting for the device."""

import json
import math
import warnings
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import ResNetConfig, ResNetForImageClassification

from tests.unit.toys import (
    tiny_network,
    tiny_settings,
    train,
    write_recipe,
)
from training.common.errors import UserError
from training.common.precision import full_float32, tf32
from training.config.recipe import parse_recipe
from training.engine.compilation import trains_in_tf32
from training.engine.trainer import FoodTrainer
from training.engine.wiring import build_trainer
from training.model.arguments import ModelArguments
from training.model.create import build_network
from training.model.network import Network
from training.run.record import describe_step, input_line, step_line

NO_CHECKPOINTS = {"save_strategy": "no", "eval_strategy": "no", "load_best_model_at_end": False}


def losses(trainer: FoodTrainer) -> list[float]:
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


# ---- attention and optimizer ------------------------------------------------------------------


def test_attention_is_sdpa_wherever_the_network_comes_from(tmp_path):
    network = tiny_network()
    network.model.save_pretrained(tmp_path)
    network.processor.save_pretrained(tmp_path)
    labels = list(network.model.config.id2label.values())
    networks = [network]
    for size in (32, 64):  # as saved, and with its positions resized
        networks.append(build_network(ModelArguments(str(tmp_path), image_size=size), labels, 0))
    assert [n.model.config._attn_implementation for n in networks] == ["sdpa"] * 3


def test_adamw_is_fused_unless_the_recipe_says_otherwise(trainer_for):
    optimizer = trainer_for().create_optimizer()
    assert isinstance(optimizer, torch.optim.AdamW)
    assert all(group["fused"] for group in optimizer.param_groups)
    assert not trainer_for(optim="adamw_torch").create_optimizer().defaults["fused"]


# ---- torch.compile ----------------------------------------------------------------------------

# The `eager` and `aot_eager` backends capture graphs as inductor does, and compile nothing.


@pytest.fixture
def dynamo():
    """The counters of torch.compile, from zero; every graph is forgotten before and after."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield torch._dynamo.utils.counters
    torch._dynamo.reset()


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


def test_a_compiled_run_continues_from_an_uncompiled_checkpoint(dynamo, trainer_for, tmp_path):
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


@pytest.mark.parametrize(
    ("key", "value", "known"),
    [
        ("backend", "indctor", "inductor"),
        ("mode", "fast", "reduce-overhead"),
        ("backend", "no", ""),
    ],
)
def test_unknown_words_for_compilation_are_refused_at_once(tmp_path, key, value, known):
    with pytest.raises(UserError, match=f"torch_compile_{key} is {value}: give one of .*{known}"):
        tiny_settings(tmp_path, **{f"torch_compile_{key}": value})


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


# ---- gradient checkpointing -------------------------------------------------------------------


def test_checkpointing_computes_twice_and_learns_the_same(trainer_for):
    runs = {}
    for wanted in (False, True):
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*_checkpointing.*")  # of an old name
            trainer = trainer_for(
                str(wanted), gradient_checkpointing=wanted, logging_steps=1, **NO_CHECKPOINTS
            )
            calls: list[int] = []
            layer = trainer.model.vit.layers[0]
            layer.mlp.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
            trainer.train()
        assert layer.gradient_checkpointing == wanted
        runs[wanted] = losses(trainer), len(calls)
    assert layer._gradient_checkpointing_func.keywords == {"use_reentrant": False}
    (plain, once), (checkpointed, twice) = runs[False], runs[True]
    assert checkpointed == pytest.approx(plain, abs=1e-5) and len(plain) == 4
    assert (once, twice) == (4, 8)


def test_checkpointing_has_one_name_in_every_version(tmp_path):
    recipe = write_recipe(
        tmp_path / "r.yaml", gradient_checkpointing_kwargs={"every_n_layers": 2},
        gradient_checkpointing=True,
    )  # fmt: skip
    arguments = parse_recipe([str(recipe)]).training
    names = ["gradient_checkpointing"]
    names += ["activation_checkpointing"] if hasattr(arguments, "activation_checkpointing") else []
    for name in names:
        assert getattr(arguments, name) is True
        assert getattr(arguments, f"{name}_kwargs") == {"every_n_layers": 2}


def test_a_network_without_checkpointing_is_refused(splits, tmp_path):
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=3)
    ours = tiny_network()
    other = Network(ResNetForImageClassification(config), ours.processor, ours.preprocessing,
                    None, None, "new")  # fmt: skip
    with pytest.raises(UserError, match="gradient_checkpointing: ResNet.* does not support it"):
        build_trainer(other, splits, tiny_settings(tmp_path, gradient_checkpointing=True))
    build_trainer(other, splits, tiny_settings(tmp_path))


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


def test_tf32_on_a_machine_without_it_is_refused(tmp_path):
    with pytest.raises(UserError, match="tf32 requires"):
        tiny_settings(tmp_path, tf32=True)


# ---- the host does not wait for the device ----------------------------------------------------


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


def test_a_loss_that_is_not_finite_is_seen_without_logs_or_checkpoints(trainer_for):
    trainer = trainer_for(**NO_CHECKPOINTS)
    with torch.no_grad():
        trainer.model.classifier.weight[0, 0] = math.nan
    with pytest.raises(UserError, match="not finite at step 1"):
        trainer.train()


def test_batches_go_to_a_gpu_without_waiting(tmp_path, monkeypatch):
    arguments = tiny_settings(tmp_path).training
    assert not arguments.dataloader_pin_memory and not arguments.accelerator_config.non_blocking
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    arguments.use_cpu, arguments.accelerator_config = False, None
    arguments._choose_workers(1)
    assert arguments.dataloader_pin_memory
    assert arguments.accelerator_config == {"non_blocking": True}
    arguments.accelerator_config = {"even_batches": False}  # a recipe's own is left as it is
    arguments._choose_workers(1)
    assert arguments.accelerator_config == {"even_batches": False}


# ---- what a run says of it --------------------------------------------------------------------


def test_what_was_in_force_is_written_down(tiny_run):
    training = json.loads((tiny_run / "run.json").read_text())["training"]
    assert training["optimizer"] == "adamw_torch_fused"
    assert training["attn_implementation"] == "sdpa"
    assert (training["compile"], training["gradient_checkpointing"]) == (None, False)
    assert training["tf32"] is False
    assert training["input"] == {
        "num_workers": 0, "prefetch_factor": None, "persistent_workers": False, "pin_memory": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        ({"dataloader_num_workers": 0}, "no workers"),
        ({"dataloader_num_workers": 3}, "3 workers a process, prefetch 4, kept alive"),
        (
            {
                "dataloader_num_workers": 1,
                "dataloader_prefetch_factor": 2,
                "dataloader_persistent_workers": False,
            },
            "1 worker a process, prefetch 2",
        ),
    ],
)
def test_the_workers_in_words(trainer_for, workers, expected):
    assert input_line(describe_step(trainer_for(**workers))["input"]) == expected


def test_the_step_in_words(trainer_for):
    facts = describe_step(trainer_for())
    assert step_line(facts) == "sdpa attention, no workers"
    facts |= {"attn_implementation": "eager", "tf32": True, "gradient_checkpointing": True}
    facts |= {"compile": {"backend": "inductor", "mode": "default"}}
    assert step_line(facts) == "compiled by inductor, gradient checkpointing, TF32, no workers"
