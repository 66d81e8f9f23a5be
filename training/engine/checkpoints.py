"""Where a run can be resumed: checkpoints of the run, and of its first phase if it has two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.common.errors import UserError
from training.common.files import read_json

COMPLETE = "complete"  # written into a checkpoint last, so that half a checkpoint is never resumed

# Instead of model.safetensors with `tune: lora`: what is trained, without what is frozen.
LORA_WEIGHTS = "lora.safetensors"

PROBE = "probe"  # folder of the first phase of `tune: probe_then_full`

PROBE_RESULT = "probe.json"  # written when a probe has come to its end

HEAD = "head.safetensors"  # what it chose


def find_checkpoint(folder: Path, wanted: str | None) -> str | None:
    """`last`, a path or nothing -> the checkpoint folder to resume from."""
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
    """Checkpoints of the run and of its first phase to resume from.

    A first phase that came to its end needs none, and is found by its result.
    """
    if tune != "probe_then_full":
        return find_checkpoint(folder, wanted), None
    if wanted == "last" and not complete_checkpoints(folder):
        probed = complete_checkpoints(folder / PROBE)
        if probed or (folder / PROBE / PROBE_RESULT).is_file():
            return None, str(probed[-1]) if probed else None
    found = find_checkpoint(folder, wanted)
    # Heads have no config; the folder's name says nothing, a run's may be `probe` too.
    is_probe = found is not None and not (Path(found) / "config.json").is_file()
    return (None, found) if is_probe else (found, None)


def refuse_other_method(checkpoint: Path, tune: str) -> None:
    """Refuse a checkpoint that LoRA wrote where something else is trained, and the other way round.

    Raises:
        UserError: it is so.
    """
    is_lora = (checkpoint / LORA_WEIGHTS).is_file()
    if is_lora != (tune == "lora"):
        raise UserError(
            f"checkpoint {checkpoint} was written with{'' if is_lora else 'out'} tune: lora and "
            f"the recipe has {tune}: resume with the recipe that it has"
        )


def complete_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints whose writing came to its end, oldest first."""
    found = [path.parent for path in folder.glob(f"checkpoint-*/{COMPLETE}")]
    return sorted(found, key=lambda path: int(path.name.rsplit("-", 1)[1]))


def is_begun(folder: Path) -> bool:
    """Whether there is something to lose that a resume would go on from."""
    probe = folder / PROBE
    return bool(
        complete_checkpoints(folder)
        or complete_checkpoints(probe)
        or (probe / PROBE_RESULT).is_file()
    )


def probe_result(folder: Path) -> dict[str, Any] | None:
    """What a probe in this run chose; none where there was no probe."""
    for path in (folder / PROBE_RESULT, folder / PROBE / PROBE_RESULT):
        if path.is_file():
            return read_json(path)
    return None
