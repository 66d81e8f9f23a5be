# SPDX-License-Identifier: Apache-2.0
"""TrainingArguments of a recipe: the batch cut over processes, workers, and what does not fit together."""

import pytest
import torch
from transformers import (
    TrainingArguments,
)

from tests.unit.toys import (
    tiny_arguments,
    tiny_settings,
    write_recipe,
)
from training.common.errors import UserError
from training.config.recipe import parse_recipe
from training.engine import training_arguments as config


@pytest.fixture
def batch(monkeypatch, tmp_path):
    """batch(total, per device, processes) -> (per device, accumulation).

    A WORLD_SIZE without a launcher is what check_world_size refuses, so that is left out here.
    """

    def batch(total: int, device: int | None, world_size: int) -> tuple[int, int]:
        monkeypatch.setenv("WORLD_SIZE", str(world_size))
        monkeypatch.setattr(config, "check_world_size", lambda *_: None)
        monkeypatch.setattr(TrainingArguments, "__post_init__", lambda self: None)
        monkeypatch.setattr(TrainingArguments, "world_size", world_size)
        monkeypatch.setattr(TrainingArguments, "n_gpu", 0)
        args = config.FineTuningArguments(
            output_dir=str(tmp_path),
            total_train_batch_size=total,
            per_device_train_batch_size=device,
        )
        return args.per_device_train_batch_size, args.gradient_accumulation_steps

    return batch


@pytest.mark.parametrize(
    ("total", "device", "world_size", "expected"),
    [
        (64, None, 1, (64, 1)),
        (64, None, 4, (16, 1)),
        (64, 16, 1, (16, 4)),
        (64, 16, 2, (16, 2)),
        (64, 16, 4, (16, 1)),
        (8, 8, 1, (8, 1)),
        (8, 4, 1, (4, 2)),
        (8, 1, 1, (1, 8)),
        (8, 4, 2, (4, 1)),
        (6, None, 3, (2, 1)),
        (256, 64, 8, (32, 1)),  # vit_base_food101 on 8 GPUs
        (64, 24, 4, (16, 1)),
    ],
)
def test_accumulation_is_derived(batch, total, device, world_size, expected):
    assert batch(total, device, world_size) == expected


@pytest.mark.parametrize(
    ("total", "device", "world_size", "numbers"),
    [
        (64, 24, 1, "64 is not a multiple of per_device_train_batch_size 24 x 1 processes = 24"),
        (64, 16, 3, "64 is not a multiple of per_device_train_batch_size 16 x 3 processes = 48"),
        (64, None, 3, "64 is not a multiple of per_device_train_batch_size 21 x 3 processes = 63"),
        (2, None, 4, "2 is not a multiple of per_device_train_batch_size 1 x 4 processes = 4"),
        (64, 0, 1, "per_device_train_batch_size is 0: give at least 1"),
        (0, None, 1, "total_train_batch_size is 0: give at least 1"),
    ],
)
def test_what_does_not_divide_is_refused_with_the_numbers(
    batch, total, device, world_size, numbers
):
    with pytest.raises(UserError, match=numbers):
        batch(total, device, world_size)


@pytest.mark.parametrize(
    ("device", "given", "expected"), [(8, None, 64), (32, None, 128), (512, None, 256), (8, 5, 5)]
)
def test_how_many_images_are_scored_at_once(tmp_path, device, given, expected):
    values = {"total_train_batch_size": device, "per_device_eval_batch_size": given}
    assert tiny_arguments(tmp_path, **values).per_device_eval_batch_size == expected


@pytest.mark.parametrize(
    "other",
    [{"eval_strategy": "no"}, {"load_best_model_at_end": False}, {"eval_on_start": True}],
    ids=lambda o: min(o),
)
def test_early_stopping_needs_scores_and_the_best_weights(tmp_path, other):
    with pytest.raises(UserError, match=f"early_stopping_patience 2 with {min(other)}"):
        tiny_settings(tmp_path, early_stopping_patience=2, **other)


def test_batches_go_to_a_gpu_without_waiting(tmp_path, monkeypatch):
    arguments = tiny_settings(tmp_path).training
    assert not arguments.dataloader_pin_memory and not arguments.accelerator_config.non_blocking
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    arguments.dataloader_pin_memory = None
    arguments._choose_workers(1)
    assert not arguments.dataloader_pin_memory  # the GPU is not used
    arguments.use_cpu, arguments.accelerator_config = False, None
    arguments.dataloader_pin_memory = None
    arguments._choose_workers(1)
    assert arguments.dataloader_pin_memory
    assert arguments.accelerator_config == {"non_blocking": True}
    arguments.accelerator_config = {"even_batches": False}  # a recipe's own is left as it is
    arguments._choose_workers(1)
    assert arguments.accelerator_config == {"even_batches": False}


def test_memory_is_pinned_as_the_recipe_says(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="^dataloader_pin_memory is true and no GPU is used: leave"):
        tiny_settings(tmp_path, dataloader_pin_memory=True)
    arguments = tiny_settings(tmp_path, dataloader_pin_memory=False).training
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    arguments.use_cpu, arguments.accelerator_config = False, None
    arguments._choose_workers(1)
    assert arguments.dataloader_pin_memory is False and arguments.accelerator_config is None


def test_the_home_folder_in_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    arguments = tiny_arguments("~/run", resume_from_checkpoint="~/run/checkpoint-4")
    assert arguments.output_dir == str(tmp_path / "run")
    assert arguments.resume_from_checkpoint == str(tmp_path / "run" / "checkpoint-4")


def test_no_step_at_all_is_refused(tmp_path):
    with pytest.raises(UserError, match="^max_steps is 0: give a whole number above 0, or -1"):
        tiny_arguments(tmp_path, max_steps=0)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"accelerator_config": {"split": True}}, "unexpected keyword argument 'split'"),
        ({"accelerator_config": "nowhere.json"}, "No such file.*nowhere.json"),
        ({"logging_steps": 1.5}, "logging_steps must be an integer"),
    ],
)
def test_what_transformers_refuses_is_one_line(tmp_path, values, said):
    with pytest.raises(UserError, match=said) as error:
        tiny_arguments(tmp_path, **values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("cores", "launched", "workers"),
    [
        (1, 1, 1),
        (4, 1, 4),
        (5, 1, 4),  # from here on a core is left to the training itself
        (64, 1, 16),
        (64, 8, 7),
        (2, 4, 1),
    ],
)
def test_workers_are_chosen_from_the_cores(tmp_path, monkeypatch, cores, launched, workers):
    arguments = tiny_arguments(tmp_path)
    monkeypatch.setattr(config, "usable_cores", lambda: cores)
    arguments.dataloader_num_workers = -1
    arguments.dataloader_persistent_workers = True
    arguments._choose_workers(launched)
    assert arguments.dataloader_num_workers == workers
    assert arguments.dataloader_prefetch_factor == 4 and arguments.dataloader_persistent_workers
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # of several machines, this one's share
    arguments.dataloader_num_workers = -1
    arguments._choose_workers(launched)
    half = cores // 2
    assert arguments.dataloader_num_workers == max(1, min(16, half - 1 if half > 4 else half))


def test_workers_that_are_given_stay(tmp_path):
    arguments = tiny_arguments(tmp_path, dataloader_num_workers=3, dataloader_prefetch_factor=2)
    assert (arguments.dataloader_num_workers, arguments.dataloader_prefetch_factor) == (3, 2)
    none = tiny_arguments(tmp_path, dataloader_num_workers=0)
    assert (none.dataloader_persistent_workers, none.dataloader_prefetch_factor) == (False, None)


def test_a_metric_that_should_be_low_is_known_and_the_recipe_may_contradict(tmp_path):
    assert tiny_arguments(tmp_path, metric_for_best_model="nll").greater_is_better is False
    contrary = {"metric_for_best_model": "nll", "greater_is_better": True}
    assert tiny_arguments(tmp_path, **contrary).greater_is_better is True


def test_an_unknown_metric_is_refused(tmp_path):
    with pytest.raises(UserError, match="metric_for_best_model is acc: give one of top1, .*, loss"):
        tiny_arguments(tmp_path, metric_for_best_model="acc")
    tiny_arguments(tmp_path, metric_for_best_model="eval_nll")


def test_the_best_weights_must_be_saved_where_they_are_scored(tmp_path):
    with pytest.raises(
        UserError, match="^eval_strategy epoch and save_strategy no differ: .* false$"
    ):
        tiny_arguments(tmp_path, save_strategy="no")
    tiny_arguments(tmp_path, save_strategy="no", load_best_model_at_end=False)
    tiny_arguments(tmp_path, save_strategy="best")


def test_checkpoints_by_steps_follow_the_scorings(tmp_path):
    by_steps = {"eval_strategy": "steps", "save_strategy": "steps"}
    assert tiny_arguments(tmp_path, **by_steps, logging_steps=45).save_steps == 45
    assert tiny_arguments(tmp_path, **by_steps, eval_steps=0.25).save_steps == 0.25
    assert tiny_arguments(tmp_path, **by_steps, eval_steps=5, save_steps=10).save_steps == 10
    assert tiny_arguments(tmp_path).save_steps == 500


def test_nothing_to_train_is_refused(tmp_path):
    with pytest.raises(UserError, match="^num_train_epochs is 0: nothing would be trained$"):
        tiny_arguments(tmp_path, num_train_epochs=0)
    assert tiny_arguments(tmp_path, num_train_epochs=0, max_steps=1).max_steps == 1


def test_the_order_has_a_seed_of_its_own_unless_it_is_null(tmp_path):
    assert tiny_arguments(tmp_path, seed=3).order_seed == 0
    assert tiny_arguments(tmp_path, seed=3, data_seed=5).order_seed == 5
    assert tiny_arguments(tmp_path, seed=3, data_seed=None).order_seed == 3


def test_trackers_record_the_recipes_other_keys_too(tmp_path):
    recipe = write_recipe(tmp_path / "r.yaml", mixup=0.8)
    recorded = parse_recipe([str(recipe)]).training.to_dict()
    assert (recorded["mixup"], recorded["learning_rate"]) == (0.8, 1e-3)


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


def test_tf32_on_a_machine_without_it_is_refused(tmp_path):
    with pytest.raises(UserError, match="tf32 requires"):
        tiny_settings(tmp_path, tf32=True)


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


# ---- the world size ----------------------------------------------------------------------------


def test_the_world_size_guard():
    config.check_world_size(1, 1, 0)
    config.check_world_size(4, 4, 1)
    with pytest.raises(UserError, match="started 2 processes but torch sees a world of 1.*USE_CPU"):
        config.check_world_size(2, 1, 0)
    with pytest.raises(UserError, match="one process sees 4 GPUs"):
        config.check_world_size(1, 1, 4)


def test_a_launcher_that_torch_does_not_see_is_refused(monkeypatch):
    """A multi-GPU configuration on a machine without GPUs trains twice into one folder."""
    monkeypatch.setattr(TrainingArguments, "__post_init__", lambda self: None)
    monkeypatch.setattr(TrainingArguments, "world_size", 1)
    monkeypatch.setattr(TrainingArguments, "n_gpu", 0)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="the launcher started 2 processes"):
        config.FineTuningArguments(output_dir="unused")
