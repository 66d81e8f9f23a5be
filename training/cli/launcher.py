"""Start training under `accelerate launch`, with options that fit the machine."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

from training.common.errors import UserError
from training.common.machine import usable_cores


def launch(argv: list[str]) -> int:
    """Run `training.train` under `accelerate launch`.

    Args:
        argv: [RECIPE, --key, value, ...].

    Returns:
        The exit code: 0, or that of the first process that failed.

    Raises:
        UserError: a launcher has started this process already, and there are several GPUs.
    """
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    options = machine_options()
    if "--cpu" in options:
        # Idle OpenMP threads spin by default, and the cores are shared with the decoding workers:
        # measured on 2 cores with one of them busy, a step takes 0.35 s instead of 0.70 s.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.stderr.write(f"accelerate launch {shlex.join([*options, '-m', 'training.train', *argv])}\n")
    args = launch_command_parser().parse_args([*options, "-m", "training.train", *argv])
    try:
        launch_command(args)
    except subprocess.CalledProcessError as error:  # one process; it has said what was wrong
        return error.returncode
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode
    return 0


def machine_options() -> list[str]:
    """Choose the options of `accelerate launch`: a process for each GPU, or one on the CPU.

    Raises:
        UserError: a launcher has started this process already, and there are several GPUs.
    """
    import torch

    common = ["--num_machines", "1", "--dynamo_backend", "no"]
    if not torch.cuda.is_available():
        # accelerate would count physical cores, one thread where hyper-threads are all there is.
        threads = ["--num_cpu_threads_per_process", str(usable_cores())]
        return ["--cpu", "--num_processes", "1", "--mixed_precision", "no", *common, *threads]
    count = torch.cuda.device_count()
    precision = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    if count > 1 and "WORLD_SIZE" in os.environ:
        raise UserError("food101 train starts its own processes: do not run it under a launcher")
    several = ["--multi_gpu"] if count > 1 else []
    return [*several, "--num_processes", str(count), "--mixed_precision", precision, *common]
