"""Start training as `accelerate launch` does, with options that fit the machine."""

from __future__ import annotations

import os
import shlex
import sys
from typing import Any

from training.common.errors import UserError
from training.common.machine import usable_cores

TRAINING = "training.train"


def launch(argv: list[str]) -> int:
    """Run `training.train` as `accelerate launch` does; with one process, become that process.

    Args:
        argv: [RECIPE, --key, value, ...].

    Returns:
        The exit code of several processes: 0, that of the first one that failed, or 128 and the number
        of the signal that ended them. With one process this does not return: there is no parent that
        could be killed alone, and leave a training behind.

    Raises:
        UserError: a launcher has started this process already, and there are several GPUs.
    """
    from accelerate.commands.launch import launch_command_parser

    options = machine_options()
    if "--cpu" in options:
        # Idle OpenMP threads spin by default, and the cores are shared with the decoding workers:
        # measured on 2 cores with one of them busy, a step takes 0.35 s instead of 0.70 s.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    words = [*options, "-m", TRAINING, *argv]
    sys.stderr.write(f"accelerate launch {shlex.join(words)}\n")
    args = launch_command_parser().parse_args(words)
    if "--multi_gpu" in options:
        return _launch_several(args)
    return _become_training(args)


def _become_training(args: Any) -> Any:
    from accelerate.utils import prepare_simple_launcher_cmd_env

    command, environment = prepare_simple_launcher_cmd_env(args)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvpe(command[0], command, environment)


def _launch_several(args: Any) -> int:
    from accelerate.commands.launch import launch_command
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        launch_command(args)
    except ChildFailedError as error:  # the process has said what was wrong
        _, failure = error.get_first_failure()
        code = failure.exitcode
        return code if code >= 0 else 128 - code  # -9 where a signal ended it
    except SignalException as error:  # it was passed on, and all processes have ended
        return 128 + error.sigval
    return 0


def machine_options() -> list[str]:
    """Choose the options of `accelerate launch`: a process for each GPU, or one on a Mac or the CPU.

    Raises:
        UserError: a launcher has started this process already, and there are several GPUs.
    """
    import torch

    common = ["--num_machines", "1", "--dynamo_backend", "no", "--num_cpu_threads_per_process"]
    if torch.backends.mps.is_available():  # a Mac; its lower precisions were never tried
        return ["--num_processes", "1", "--mixed_precision", "no", *common]
    if not torch.cuda.is_available():
        # accelerate would count physical cores, one thread where hyper-threads are all there is.
        threads = str(usable_cores())
        return ["--cpu", "--num_processes", "1", "--mixed_precision", "no", *common, threads]
    count = torch.cuda.device_count()
    precision = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    if count > 1 and "WORLD_SIZE" in os.environ:
        raise UserError("food101 train starts its own processes: do not run it under a launcher")
    several = ["--multi_gpu"] if count > 1 else []
    threads = os.environ.get("OMP_NUM_THREADS") or "1"  # as accelerate chooses
    options = [*several, "--num_processes", str(count), "--mixed_precision", precision]
    return [*options, *common, threads]
