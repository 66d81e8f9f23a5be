"""TODO."""

from __future__ import annotations

import argparse

# Known without importing torch; a test holds them against the parser.
USUAL_KEYS = (
    ("dataset", "Hub id, local folder or .parquet file, or `sample`"),
    ("model", "checkpoint to start from: Hub id or folder; null trains from scratch"),
    ("image_size", "pixels a side"),
    ("num_train_epochs", "passes over the training images"),
    ("max_steps", "stop after so many optimizer steps instead"),
    ("total_train_batch_size", "images in one step, over all processes"),
    ("per_device_train_batch_size", "images at once on one device; the rest is accumulated"),
    ("learning_rate", "peak learning rate"),
    ("tune", "full, linear_probe, probe_then_full or lora: which weights are trained"),
    ("probe_learning_rates", "of a linear probe, a head each; the selection slice chooses"),
    ("probe_epochs", "passes over the features before probe_then_full goes on"),
    ("layer_decay, drop_path", "lower rates towards the input; stochastic depth"),
    ("ema_decay", "score and keep a moving average of the weights"),
    ("early_stopping_patience", "stop after so many scorings without a better one"),
    ("head_init_scale", "a new head's weights times this"),
    ("weight_init", "normal or mimetic: first weights of a ViT from scratch"),
    ("lora_rank, lora_alpha, lora_dropout", "the update counts alpha / rank times"),
    ("lora_target_modules", "linear layers that are adapted; q_proj v_proj"),
    ("auto_augment", "off, randaugment or trivialaugment"),
    ("mixup, cutmix", "alpha of each, as 0.8 and 1.0; 0 is off"),
    ("random_erasing, color_jitter", "probability; strength; 0 is off"),
    ("loss", "cross_entropy, or generalized_cross_entropy for noisy labels"),
    ("torch_compile", "true: compile the network for training"),
    ("gradient_checkpointing", "true: less memory, slower steps"),
    ("selection_fraction", "share of the training split that chooses the checkpoint"),
    ("undecodable_images", "stop (default) or skip"),
    ("train_short_side", "train on images reduced to this short side; see `food101 cache`"),
    ("eval_cache_gb", "limit of decoded evaluation images and features on disk; 0 keeps none"),
    ("seed, data_seed, split_seed", "initialisation; order and crops; selection slice"),
    ("output_dir", "the run folder (default runs/RECIPE); never overwritten"),
    ("resume_from_checkpoint", "last, or the folder of a checkpoint"),
)

# ---- parsing ----------------------------------------------------------------------------------


class FoodParser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        self.exit(2, f"error: {message} (see `{self.prog} --help`)\n")


def positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def train_help() -> str:
    from training.config.packaged import packaged_recipes

    keys = "\n".join(f"  --{key:28} {text}" for key, text in USUAL_KEYS)
    return (
        "usage: food101 train RECIPE [--key value ...]\n\n"
        "Runs `accelerate launch` with what fits this machine: all GPUs in bf16, or the CPU.\n"
        f"RECIPE is a YAML file or one of: {', '.join(packaged_recipes())}\n\n"
        f"usual keys, in the recipe or on the command line:\n{keys}\n\n"
        "and every other field of transformers' TrainingArguments under its own name, except those\n"
        "for precision (accelerate_config.yaml) and for the Hub (`food101 push`)."
    )
