"""Names of files in checkpoints, and the search for the checkpoints that a run can be resumed from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.common.errors import UserError
from training.common.files import read_json
from training.engine.arguments import TUNINGS

COMPLETE = "complete"  # written into a checkpoint last, so that half a checkpoint is never resumed

# Stands instead of model.safetensors where LoRA's adapters are trained: the trained tensors without the frozen ones.
LORA_WEIGHTS = "lora.safetensors"

PROBE = "probe"  # folder of a first phase, where `tune` has one

PROBE_RESULT = "probe.json"  # written when a probe has come to its end

HEAD = "head.safetensors"  # the head that the probe chose

# Scores of a probe's images by heads that have not learned from them, where a cross-validation chose:
# logits float32 (n, num_labels), labels, fold and row (of images.csv), int64 (n,). The released head has
# learned from all of these images, so calibration must use these scores and not the head's own.
OUT_OF_FOLD = "out_of_fold.safetensors"


def find_checkpoint(folder: Path, wanted: str | None) -> str | None:
    """Find the checkpoint folder that a run resumes from.

    Args:
        folder: the run folder.
        wanted: the recipe's resume_from_checkpoint: "last", or the folder of a checkpoint. None, as
            in a run that begins, gives None.

    Raises:
        UserError: there is no such checkpoint, or its writing did not come to its end.
    """
    if wanted is None:
        return None
    if wanted == "last":
        found = complete_checkpoints(folder)
        if not found:
            raise UserError(
                f"resume_from_checkpoint last: {folder} has no complete checkpoint; start without it"
            )
        return str(found[-1])
    if not (Path(wanted) / COMPLETE).is_file():
        raise UserError(
            f"resume_from_checkpoint {wanted} is not a complete checkpoint: give its folder, or last"
        )
    return wanted


def find_checkpoints(folder: Path, wanted: str | None, tune: str) -> tuple[str | None, str | None]:
    """Find the checkpoints that a run and its first phase, a probe, resume from.

    Args:
        folder: the run folder; a first phase has the folder probe/ in it.
        wanted: as in `find_checkpoint`.
        tune: the recipe's key; `TUNINGS` says whether it has a first phase.

    Returns:
        (checkpoint of the run, checkpoint of the first phase), at most one of which is not None. A
        first phase that came to its end needs no checkpoint: its result is found instead.

    Raises:
        UserError: as `find_checkpoint`.
    """
    if not TUNINGS[tune].probes_first:
        return find_checkpoint(folder, wanted), None
    if wanted == "last" and not complete_checkpoints(folder):
        probed = complete_checkpoints(folder / PROBE)
        if probed or (folder / PROBE / PROBE_RESULT).is_file():
            return None, str(probed[-1]) if probed else None
    found = find_checkpoint(folder, wanted)
    is_probe = found is not None and _holds_heads(Path(found))
    return (None, found) if is_probe else (found, None)


def _holds_heads(checkpoint: Path) -> bool:
    """Tell whether a probe wrote a checkpoint; its folder's name says nothing, a run's may be `probe` too."""
    # A whole network has a config, and adapters have a file of their own.
    return not any((checkpoint / name).is_file() for name in ("config.json", LORA_WEIGHTS))


def refuse_other_method(checkpoint: Path, tune: str, adapts: bool) -> None:
    """Refuse a checkpoint that LoRA wrote where something else is trained, and the other way round.

    Args:
        tune: the recipe's key, for the message.
        adapts: whether adapters are trained now; in the first phase of a recipe with LoRA they are not.

    Raises:
        UserError: one of the two is LoRA and the other is not.
    """
    is_lora = (checkpoint / LORA_WEIGHTS).is_file()
    if is_lora != adapts:
        raise UserError(
            f"checkpoint {checkpoint} was written with{'' if is_lora else 'out'} adapters of LoRA and "
            f"the recipe has tune {tune}: resume with the recipe that it has"
        )


def complete_checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints in a run folder whose writing came to its end, oldest first."""
    found = [path.parent for path in folder.glob(f"checkpoint-*/{COMPLETE}")]
    return sorted(found, key=lambda path: int(path.name.rsplit("-", 1)[1]))


def is_begun(folder: Path) -> bool:
    """Tell whether a run folder holds anything that a resume would go on from."""
    probe = folder / PROBE
    return bool(
        complete_checkpoints(folder)
        or complete_checkpoints(probe)
        or (probe / PROBE_RESULT).is_file()
    )


def probe_result(folder: Path) -> dict[str, Any] | None:
    """Read what a probe in this run chose from probe.json; None where there was no probe.

    Returns:
        Of heads that learned by SGD: "solver" ("sgd"; none before there was a choice), "why",
        "learning_rate", "scaled_learning_rate", "top1", "step", "epochs", "selection_top1" (a list of
        {"learning_rate", "top1"}), "optimizer", "precision" and "width". Of a logistic regression: see
        `training.probe.logistic_trainer`.
    """
    for path in (folder / PROBE_RESULT, folder / PROBE / PROBE_RESULT):
        if path.is_file():
            return read_json(path)
    return None
