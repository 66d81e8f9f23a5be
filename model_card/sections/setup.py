"""Tables of the set-up: what to compare in a re-run, the training, the data."""

from collections.abc import Iterable
from typing import Any

from model_card.facts import CardFacts
from model_card.words import code, count, duration, hide_paths, many, percent, table, versions

SELECTION_NAMES = {"top1": "top-1 accuracy", "nll": "negative log-likelihood"}


def preprocessing_extra(facts: CardFacts) -> str:
    """List the preprocessing settings beyond the usual seven, such as "shortest_edge 256"."""
    usual = "height width resample image_mean image_std rescale_factor decoder".split()
    others = [(key, value) for key, value in facts.preprocessing if key not in usual]
    return ", ".join(f"{key} {value}" for key, value in others if value is not None)


def reproduction(facts: CardFacts) -> str:
    """Write the table of hashes, seed and versions that a re-run must share to agree."""
    rows = [
        ("SHA-256 of `model.safetensors`", code(facts.model_sha256)),
        ("SHA-256 of the data's content", code(facts.eval_fingerprint)),
        ("Mean; standard deviation", f"{_numbers(facts.image_mean)}; {_numbers(facts.image_std)}"),
        ("Pixel values times", f"{facts.rescale_factor:.6g}"),
        ("Seed", str(facts.eval_seed)),
        ("Versions", versions(facts.eval_versions)),
        ("Scored", facts.eval_created),
    ]
    if facts.eval_revision:
        rows.insert(1, ("Revision of the data set", code(facts.eval_revision)))
    return table(("To compare", "Value"), rows)


def _numbers(values: Iterable[float]) -> str:
    """(0.5, 0.25) -> "0.5, 0.25"."""
    return ", ".join(f"{value:g}" for value in values)


def training(facts: CardFacts) -> str:
    """Write the table of how the model was trained: batch, optimiser, loss, seeds, duration."""
    devices = f"{facts.world_size} x " if facts.world_size > 1 else ""
    data_seed = facts.seed if facts.data_seed is None else facts.data_seed
    rows = (
        ("Base model", _base_model(facts)),
        *([("As a ViT", _as_vit(facts.as_vit))] if facts.as_vit else []),
        ("Architecture", _architecture(facts)),
        ("Trained", _trained(facts)),
        ("Device", devices + facts.device),
        (
            "Mixed precision",
            "none (float32)" if facts.mixed_precision == "no" else facts.mixed_precision,
        ),
        *_steps(facts),
        ("Loss", _loss(facts)),
        ("Label smoothing", f"{facts.label_smoothing:g}"),
        ("Further", _further(facts)),
        ("Augmentation", _augmentation(facts)),
        ("Seeds", f"{facts.seed} (weights), {data_seed} (order of the images and augmentation)"),
        ("Speed", _speed(facts)),
        ("Duration", _duration(facts)),
        ("Started, finished", f"{facts.started}, {facts.finished}"),
        ("Recipe", code(hide_paths(facts.recipe_name))),
        ("SHA-256 of the code", code(facts.code_sha256)),
    )
    return table(("Training", "As it was"), rows)


def _steps(facts: CardFacts) -> list[tuple[str, str]]:
    """Write the rows about batch, length, optimiser and rate; a logistic regression has the optimiser only."""
    if facts.is_logistic:
        steps = many(facts.steps, "step")
        return [("Optimiser", f"L-BFGS in float64 to the optimum, {steps}, each on all images")]
    batch = (
        f"{count(facts.batch_total)} = {many(facts.world_size, 'process')} "
        f"x {many(facts.batch_device, 'image')} x {many(facts.accumulation, 'accumulation step')}"
    )
    return [
        ("Global batch", batch),
        ("Length", _length(facts)),
        ("Optimiser", f"{code(facts.optimizer)}, weight decay {facts.weight_decay:g}"),
        ("Learning rate", f"{facts.learning_rate:g} at its highest, {_schedule(facts)}"),
    ]


def _trained(facts: CardFacts) -> str:
    """Say which weights were trained, and how many of them."""
    if facts.is_probe:
        chosen = _chosen_strength if facts.is_logistic else _chosen_rate
        return f"a linear head on frozen features; {chosen(facts.probe)}"
    after = _after_probe(facts.probe) if facts.is_probed_first else ""
    if facts.is_adapted:
        trained = f"{_adapted(facts.lora)}{_of_all(facts)}"
        return f"{trained}{after}. Merged: the files hold plain weights"
    return f"all weights{after or _of_all(facts)}"


def _after_probe(probe: dict[str, Any]) -> str:
    """Say what a probe did before: ", after a linear head on frozen features; logistic regression, ..."."""
    if "strength" in probe:
        return f", after a linear head on frozen features; {_chosen_strength(probe)}"
    epochs = many(probe["epochs"], "epoch")
    return f", after {epochs} of a linear head on frozen features; its {_chosen_rate(probe)}"


def _of_all(facts: CardFacts) -> str:
    """Say how many of all parameters were trained; nothing where that was not recorded."""
    if facts.num_trainable is None:
        return ""
    return f"; {count(facts.num_trainable)} of {count(facts.num_parameters)} parameters"


def _adapted(lora: dict[str, Any]) -> str:
    """Describe the adapters: rank, alpha, dropout, layers."""
    layers = ", ".join(code(name) for name in lora["target_modules"])
    dropout = f", dropout {lora['dropout']:g}" if lora["dropout"] else ""
    return (
        f"LoRA, rank {lora['rank']}, alpha {lora['alpha']:g}{dropout}, on {layers}, and the head in full "
        f"(peft {lora['peft']})"
    )


def _chosen_rate(probe: dict[str, Any]) -> str:
    """Say which learning rate the probe chose, and of how many."""
    rates = len(probe["selection_top1"])
    return f"learning rate {probe['learning_rate']:g} of {rates}, chosen on the selection slice"


def _chosen_strength(probe: dict[str, Any]) -> str:
    """Say which strength the logistic regression chose, of how many, and on which images."""
    return (
        f"logistic regression, L2 strength {probe['strength']:.3g} of {len(probe['strengths'])}, chosen by "
        f"{probe['folds']}-fold cross-validation over the {many(probe['num_images'], 'image')} of "
        f"{probe['fitted_on']} that it was then fitted on"
    )


def _seen(facts: CardFacts) -> str:
    """Name what went through the training a second: images, or features of frozen layers."""
    return "features" if facts.is_probe else "images"


def _speed(facts: CardFacts) -> str:
    """Say how many images a second were trained on."""
    if facts.is_logistic:
        return "features were computed once"
    if facts.images_per_second is None:
        return "not known: no step was left after a resume"
    return f"{facts.images_per_second:,.1f} {_seen(facts)} per second, all processes together"


def _length(facts: CardFacts) -> str:
    """Say how long the training was, in epochs and steps."""
    steps = many(facts.steps, "optimiser step")
    if facts.stopped_early:
        return f"stopped early after {steps} of {many(facts.epochs, 'epoch')} that were planned"
    return f"{many(facts.epochs, 'epoch')}, {steps}"


def _further(facts: CardFacts) -> str:
    """List what is not in plain fine-tuning, or "none"."""
    if facts.further is not None:
        return ", ".join(text.replace("|", "\\|") for text in facts.further) or "none"
    said = [
        (facts.layer_decay != 1, f"layer-wise learning-rate decay {facts.layer_decay:g}"),
        (facts.drop_path, f"stochastic depth up to {facts.drop_path:g}"),
        (facts.ema_decay, f"moving average of the weights with decay {facts.ema_decay}"),
        (facts.patience, f"early stopping after {facts.patience} scorings without a better one"),
        (
            facts.head_init_scale not in (None, 1),
            f"new head's first weights times {facts.head_init_scale}",
        ),
    ]
    return ", ".join(text for is_so, text in said if is_so) or "none"


def _base_model(facts: CardFacts) -> str:
    """Name the checkpoint that the training began from, or how weights were drawn."""
    if facts.base_model is None:
        mimetic = ", attention by mimetic initialisation (arXiv:2305.09828)"
        return "none: weights drawn at random" + mimetic * (facts.weight_init == "mimetic")
    name = code(hide_paths(facts.base_model))
    if facts.base_revision is None:
        return f"{name}, a local copy without a recorded revision"
    return f"{name} at {code(facts.base_revision)}"


def _as_vit(done: dict[str, Any]) -> str:
    """Say how a ViT was made of a checkpoint of another architecture, and how exactly."""
    old, new = done["positions"]
    grid = f"from {old} x {old} to {new} x {new} patches, bicubic without antialias"
    positions = f"positions interpolated {grid}" if new != old else "positions as they were"
    return (
        f"from {code(done['model_type'])}, before the training: {done['done']}; {positions}; on an image of "
        f"noise the class token differed by at most {done['difference']:.1e} from the original's"
    )


def _architecture(facts: CardFacts) -> str:
    """Name the network, its size, and the size of its images."""
    patches = f", patches of {facts.patch_size} x {facts.patch_size}" if facts.patch_size else ""
    return (
        f"{code(facts.architecture)}, {count(facts.num_parameters)} parameters, "
        f"images of {facts.image_size} x {facts.image_size} pixels{patches}"
    )


def _schedule(facts: CardFacts) -> str:
    """Describe the schedule of the learning rate; a warm-up below 1 is a share of the steps."""
    if facts.warmup == 0:
        return f"{facts.schedule} schedule without warm-up"
    if facts.warmup < 1:
        return f"{facts.schedule} schedule, warm-up over {100 * facts.warmup:g} % of the steps"
    return f"{facts.schedule} schedule, warm-up over {facts.warmup:g} steps"


def _loss(facts: CardFacts) -> str:
    """Name the loss, with q where it has one."""
    return code(facts.loss) + ("" if facts.loss_q is None else f", q {facts.loss_q:g}")


def _augmentation(facts: CardFacts) -> str:
    """List the steps of augmentation, or "none"."""
    return (
        ", ".join(_augmentation_step(name, value) for name, value in facts.augmentation) or "none"
    )


def _augmentation_step(name: str, value: Any) -> str:
    """Describe one step; one that is not known here by its key and value."""
    if name == "crop_scale" and isinstance(value, list) and len(value) == 2:
        return f"random crop of {100 * value[0]:g} to {100 * value[1]:g} % of the area"
    if name == "horizontal_flip" and isinstance(value, (int, float)):
        return f"horizontal flip with probability {value:g}"
    return f"{name} {value}".replace("|", "\\|")


def _duration(facts: CardFacts) -> str:
    """Say how long training, preparing the data, and everything took."""
    return (
        f"{duration(facts.seconds_train)} of training, {duration(facts.seconds_data)} of preparing "
        f"the data, {duration(facts.seconds_total)} in all"
    )


def data(facts: CardFacts) -> str:
    """Write the table of the data set and how it was split."""
    rows = [
        ("Data set", code(hide_paths(facts.dataset))),
        ("SHA-256 of the content", code(facts.fingerprint)),
        ("Training", _training_images(facts)),
        ("Selection", _selection_images(facts)),
        ("Test", _test_images(facts)),
        (
            "Left out",
            f"{count(facts.left_out_train)} of {code(facts.train_split)}, "
            f"{count(facts.left_out_test)} of {code(facts.test_split)}",
        ),
    ]
    if facts.data_revision:
        rows.insert(1, ("Revision", code(facts.data_revision)))
    return table(("Data", "As it was"), rows)


def selection_source(facts: CardFacts) -> str:
    """Say where the selection images are from: "held out of the training split", or a split."""
    if facts.selection_split is None:
        return "held out of the training split"
    return f"of split {code(facts.selection_split)}"


def choice(facts: CardFacts) -> str:
    """Say by what the checkpoint was chosen, on which images, and how it scored there."""
    metric = SELECTION_NAMES.get(facts.selection_metric, facts.selection_metric)
    top1 = percent(facts.selection_top1, facts.selection_n)
    if facts.cross_validation is None:
        return (
            f"- The checkpoint was chosen by {metric} on {count(facts.selection_n)} images "
            f"{selection_source(facts)}:\n  step {count(facts.best_step)} (epoch {facts.best_epoch:g}), with a "
            f"top-1 accuracy of {top1} there."
        )
    folds, images = facts.cross_validation["folds"], count(facts.cross_validation["images"])
    return (
        f"- The strength was chosen by {metric} in {folds}-fold cross-validation over all {images} labelled "
        f"images,\n  training and selection together: a top-1 accuracy of {top1} on {count(facts.selection_n)} "
        "images,\n  each scored by a head that had not learned from it. The head here has learned from all of "
        "them,\n  so its own scores of the selection images say nothing; calibration uses the out-of-fold scores."
    )


def _selection_images(facts: CardFacts) -> str:
    """Say how many images chose the checkpoint, and how they were chosen themselves."""
    if facts.cross_validation is not None:
        return f"{_selection_origin(facts)}; learned from as well, after a cross-validation"
    return _selection_origin(facts)


def _selection_origin(facts: CardFacts) -> str:
    if facts.selection_split is not None:
        return f"{count(facts.num_selection)} images of split {code(facts.selection_split)}"
    return (
        f"{count(facts.num_selection)} images held out of {code(facts.train_split)}: "
        f"{100 * facts.selection_fraction:g} %, stratified by label, seed {facts.split_seed}"
    )


def _test_images(facts: CardFacts) -> str:
    """Say how many images were scored, and how they were cut where the data set has no test split."""
    if (made_by := facts.test_cut) is None:
        return f"{count(facts.num_test)} images of split {code(facts.test_split)}"
    return (
        f"{count(facts.num_test)} images held out of {code(made_by['of'])}, since the data set has no test "
        f"split: {100 * made_by['fraction']:g} %, stratified by label, equal files on one side, seed "
        f"{made_by['seed']}"
    )


def _training_images(facts: CardFacts) -> str:
    """Say how many images were trained on, and whether they were reduced beforehand."""
    images = f"{count(facts.num_train)} images of split {code(facts.train_split)}"
    if (cache := facts.train_cache) is None:
        return images
    how = f"JPEG, quality {cache['jpeg_quality']}, {cache['subsampling']}"
    return (
        f"{images}; those with a short side of more than {cache['short_side']} pixels were reduced to "
        f"it beforehand and encoded again ({how}). Selection and test images were not"
    )


def identical_note(facts: CardFacts) -> str:
    """Write how many test files are byte for byte the same as a training file."""
    if facts.identical_train_test == 0:
        found = "No test file is byte for byte the same as a training file."
    else:
        found = (
            f"{count(facts.identical_train_test)} files are byte for byte the same in training and "
            "test; they count in the results above."
        )
    return f"{found}\nNear-duplicates were not looked for."
