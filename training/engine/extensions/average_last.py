"""The equal-weight mean of the weights at the last k scorings (arXiv:1803.05407).

What Izmailov et al. call stochastic weight averaging: the points of a trajectory are averaged, here
the k last ones at which the selection slice is scored. The mean is what is scored, saved as a
checkpoint's model, selected and released; training goes on from its own weights. Before k scorings
it is the mean of those that there were.

    average_last/step-N.safetensors          the weights at one of the last k scorings
    checkpoint-N/average_last.safetensors    the weights to train on from
    checkpoint-N/average_last.json           the steps whose mean checkpoint-N/model.safetensors is

The files lie outside the checkpoints, so that their rotation leaves them alone: each checkpoint that
is still there can be resumed. Kept are the last k and those that an older checkpoint needs.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors import safe_open

from training.common.errors import UserError
from training.common.files import read_json, write_json
from training.engine.extension import Extension
from training.engine.method import Method
from training.engine.training_arguments import Settings
from training.model.network import Network

FOLDER, STEPS = "average_last", "average_last.json"  # in the run folder; in a checkpoint


class AverageLast(Extension):
    """Scores and keeps the mean of the weights at the last k scorings.

    Args:
        k: how many scorings, at least 2.
        run: the run folder.
        is_resumable: checkpoints are written that a run can be resumed from.
    """

    key = "average_last"
    file = "average_last.safetensors"

    def __init__(self, k: int, run: Path, is_resumable: bool) -> None:
        self.k, self.run, self.is_resumable = k, run, is_resumable
        self.folder = run / FOLDER
        self.steps: list[int] = []  # of the scorings whose mean is taken, oldest first
        self.method: Method | None = None  # until training begins

    @classmethod
    def build(cls, network: Network, settings: Settings) -> AverageLast | None:
        """Make the extension where `average_last` is set; None where it is not.

        Raises:
            UserError: the selection slice is never scored.
        """
        k, args = settings.extensions.average_last, settings.training
        if k is None:
            return None
        if args.eval_strategy == "no":
            raise UserError(
                f"average_last {k} with eval_strategy no: nothing would be scored and averaged; give "
                "eval_strategy epoch or steps"
            )
        is_resumable = args.save_strategy != "no" and not args.save_only_model
        return cls(k, Path(args.output_dir), is_resumable)

    def refuse_shards(self) -> None:
        """Refuse FSDP and DeepSpeed.

        Raises:
            UserError: always.
        """
        raise UserError(
            f"average_last {self.k} with FSDP or DeepSpeed: each process holds a part of the "
            "weights only; use accelerate_config.yaml, or leave average_last out"
        )

    def prepare(self, method: Method) -> None:
        """Remember the method whose weights will be averaged; nothing is collected yet."""
        self.method = method

    def before_scoring(self, step: int) -> None:
        """Keep the weights as they are now, as the newest of the k."""
        if step in self.steps:
            return
        if PartialState().is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary = self.folder / f".{step}"
            self.method.save_state(temporary)
            os.replace(temporary, self._file(step))
        PartialState().wait_for_everyone()
        self.steps = [*self.steps, step][-self.k :]
        if PartialState().is_main_process and not self.is_resumable:
            self._remove_others()

    @contextlib.contextmanager
    def scoring(self) -> Iterator[None]:
        """Put the mean into the model inside, and the trained weights back."""
        state = self.method.state()
        trained = {name: value.detach().clone() for name, value in state.items()}
        self._put_mean()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in state.items():
                    value.copy_(trained[name])

    def save(self, folder: Path) -> None:
        """Write the trained weights and the steps; remove the files that no checkpoint needs."""
        write_json(folder / STEPS, {"steps": self.steps})
        self.method.save_state(folder / self.file)
        self._remove_others()

    def load(self, folder: Path) -> None:
        """Go on from a checkpoint of this run, or of another whose files are copied.

        Raises:
            UserError: weights that the mean needs have gone.
        """
        self.method.load_state(folder / self.file)
        self.steps = read_json(folder / STEPS)["steps"][-self.k :]
        source = folder.parent / FOLDER
        missing = [step for step in self.steps if not (source / self._file(step).name).is_file()]
        if missing:
            raise UserError(
                f"checkpoint {folder} needs the weights of step {missing[0]}, and "
                f"{source / self._file(missing[0]).name} is not there: put it back, or give another "
                "checkpoint"
            )
        if PartialState().is_main_process and source.resolve() != self.folder.resolve():
            self.folder.mkdir(parents=True, exist_ok=True)
            for step in self.steps:
                shutil.copyfile(source / self._file(step).name, self._file(step))
        PartialState().wait_for_everyone()

    def finish(self, loaded_best: bool) -> None:
        """Keep the mean; the selected checkpoint's weights are a mean already."""
        if not loaded_best:
            self._put_mean()

    @torch.no_grad()
    def _put_mean(self) -> None:
        """Average floating-point values in float64; others, such as counters, are the newest ones."""
        if not self.steps:  # nothing was scored: the weights stay as they are
            return
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(safe_open(self._file(step), "pt")) for step in self.steps]
            for name, value in self.method.state().items():
                saved = [file.get_tensor(name) for file in files]
                if value.is_floating_point():
                    value.copy_(torch.stack(saved).double().mean(0))
                else:
                    value.copy_(saved[-1])

    def _file(self, step: int) -> Path:
        return self.folder / f"step-{step}.safetensors"

    def _remove_others(self) -> None:
        steps = {*self.steps}
        for path in self.run.glob(f"checkpoint-*/{STEPS}"):
            steps |= {*read_json(path)["steps"]}
        kept = {self._file(step) for step in steps}
        for path in self.folder.iterdir():
            if path not in kept:
                path.unlink()
