# SPDX-License-Identifier: Apache-2.0
"""The formulas of scale.py: seconds of one Food-101 run from measured inputs and assumptions."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from common import ROOT, VIT_B, vit_flops
from pages import UsageError

RESULTS = ROOT / "benchmarks" / "results"
TRAIN, TEST, CLASSES = 75_750, 25_250, 101
# recipes/vit_base_food101.yaml
EPOCHS, MICRO_BATCH, SELECTION_FRACTION = 10, 64, 0.05
MAX_WORKERS = 16  # of a process: `dataloader_num_workers: -1` in training/config.py
SCAN_IMAGES_A_PROCESS = 256  # of the scan before the first step
BACKWARD = 2 / 3  # share of a training pass: the backward pass has twice the forward's operations
ASSUMED = "assumed"


def assumption(default: float, meaning: str, source: str = ASSUMED) -> Any:
    return field(default=default, metadata={"meaning": meaning, "source": source})


@dataclass(frozen=True)
class Assumptions:
    """What was not measured by this project; each can be set on the command line."""

    matmul_tflops: float = assumption(
        800, "bf16 matmul rate of one GPU, TFLOP/s", "assumed; H100 SXM data sheet: 989 dense"
    )
    utilisation: float = assumption(0.45, "share of it that a full training pass reaches")
    float32_tflops: float = assumption(
        40, "float32 forward without TF32, TFLOP/s", "assumed; H100 SXM data sheet: 67"
    )
    step_floor_ms: float = assumption(
        12, "a forward and backward pass takes this long however few images it has", "assumed: "
        "about 1,200 kernel launches at 10 µs",
    )  # fmt: skip
    cores_per_gpu: float = assumption(16, "cores (as the system counts them) for each GPU")
    reserve: float = assumption(1, "of these not for workers", "`dataloader_num_workers: -1`")
    worker_efficiency: float = assumption(
        0.8, "rate of one of many workers over that of one process alone"
    )
    cost_at_384: float = assumption(1.5, "input of a 384-pixel image over one of 224 pixels")
    gpus_per_machine: float = assumption(8, "GPUs that share NVLink, memory and disk")
    nvlink_GBps: float = assumption(
        300, "ring all-reduce within a machine, GB/s a GPU (bus bandwidth)", "assumed; NCCL's "
        "maintainer names 370 for large messages (NVIDIA/nccl-tests issue 212)",
    )  # fmt: skip
    network_GBps: float = assumption(
        40, "the same between machines", "assumed: one 400 Gb/s adapter a machine at 80 %"
    )
    overlap: float = assumption(0.8, "share of the backward pass that hides all-reduce")
    checkpoint_GBps: float = assumption(1, "writing and reading files, GB/s")
    launch_s: float = assumption(4, "`accelerate launch` before the first line of ours")
    device_s: float = assumption(5, "CUDA context, process group, weights to the device")
    first_batch_s: float = assumption(2, "start of the workers until their first batch")
    epoch_pause_s: float = assumption(1, "an epoch's end: queues run empty, metrics, log")
    finish_s: float = assumption(10, "best weights read back, `model/` and `release/` written")
    torch_compile: float = assumption(0, "1 adds the next line; give its `--utilisation` too")
    compile_s: float = assumption(60, "torch.compile before the first step")
    price_per_gpu_hour: float = assumption(2.5, "dollars")

    def __post_init__(self) -> None:
        for each in fields(self):
            value, name = getattr(self, each.name), each.name
            may_be_zero = name.endswith("_s") or name in ("reserve", "overlap", "torch_compile")
            if not 0 <= value < math.inf or (value == 0 and not may_be_zero):
                raise UsageError(f"--{name} is {value}: give a positive number")
        for name in ("utilisation", "worker_efficiency", "overlap"):
            if getattr(self, name) > 1:
                raise UsageError(f"--{name} is {getattr(self, name)}: give a share up to 1")

    @property
    def workers(self) -> int:
        """On each GPU's rank, as `dataloader_num_workers: -1` chooses them."""
        reserve = self.reserve if self.cores_per_gpu > 4 else 0
        return int(max(1, min(MAX_WORKERS, self.cores_per_gpu - reserve)))


# ---- measured inputs -----------------------------------------------------------------------------

LOOSE, CACHED = "`reduced_decoding: loose`", "`train_short_side: 256`"
INPUT = {  # what the page calls a way to decode -> row of input.json's group "train input"
    "the Trainer example's way": "example's way",
    "exact, Pillow only": "ours, Pillow only",
    "exact": "ours",
    LOOSE: "ours, reduced decoding loose",
    CACHED: "ours, short-side-256 cache",
}
DECODE_ALONE = "limit: simplejpeg decode alone"


@dataclass(frozen=True)
class Measured:
    """Medians of the recorded benchmarks. Milliseconds an image on one core, seconds a command.

    The two of the evaluation cache are None until evaluation.json is recorded.
    """

    input_ms: dict[str, float]
    eval_ms: float
    scan_ms: float
    start_s: float
    cached_ms: float | None = None
    fill_ms: float | None = None

    @classmethod
    def read(cls, folder: Path = RESULTS) -> Measured:
        """Raises UsageError where a file or a row is missing."""
        images, start = load(folder, "input.json"), load(folder, "startup.json")
        cache = load(folder, "evaluation.json") if has_evaluation(folder) else None
        later, first = "later evaluation input", "first evaluation input"
        return cls(
            {name: median_ms(images, "train input", row) for name, row in INPUT.items()},
            median_ms(images, "evaluation input", "ours"),
            median_ms(images, "train input", DECODE_ALONE),
            median_ms(start, "first label", "food101 predict") / 1000,
            cache and median_ms(cache, later, "ours, from the cache"),
            cache and median_ms(cache, first, "ours, filling the cache", "wall"),
        )


def has_evaluation(folder: Path) -> bool:
    return (folder / "evaluation.json").is_file()


def load(folder: Path, name: str) -> dict[str, Any]:
    if not (folder / name).is_file():
        script = name.replace(".json", ".py")
        raise UsageError(
            f"no {name} in {folder}: python benchmarks/{script} --json benchmarks/results/{name}"
        )
    return json.loads((folder / name).read_text(encoding="utf-8"))


def median_ms(result: dict[str, Any], group: str, name: str, clock: str | None = None) -> float:
    return spread_ms(result, group, name, clock)["median"]


def spread_ms(
    result: dict[str, Any], group: str, name: str, clock: str | None = None
) -> dict[str, float]:
    """Of the first row with that clock, or of any clock."""
    for row in result["rows"]:
        if (row["group"], row["name"]) == (group, name) and clock in (None, row["clock"]):
            if "skipped" not in row:
                return row["ms"]
    raise UsageError(f"no row {name!r} in group {group!r} of {result['command']}: run it again")


# ---- the run -------------------------------------------------------------------------------------


def vit_parameters(config: dict[str, Any], classes: int) -> int:
    """Weights of ViTForImageClassification: embeddings, blocks, last norm, head; no pooler."""
    d, hidden = config["hidden_size"], config["intermediate_size"]
    patches = (config["image_size"] // config["patch_size"]) ** 2
    embeddings = d * (3 * config["patch_size"] ** 2 + 1) + d + (patches + 1) * d
    block = 4 * (d * d + d) + (d * hidden + hidden) + (hidden * d + d) + 4 * d
    head = d * classes + classes
    return embeddings + config["num_hidden_layers"] * block + 2 * d + head


def ring_seconds(gpus: int, size: float, bandwidth: float) -> float:
    """All-reduce of `size` bytes over a ring whose slowest link has `bandwidth` bytes/s."""
    return 2 * (gpus - 1) / gpus * size / bandwidth


def images_per_second(ms: float, processes: float) -> float:
    return processes * 1000 / ms


@dataclass(frozen=True)
class Case:
    """One run: the recipe on so many GPUs. Times in seconds, rates in images/s of all GPUs."""

    gpus: int
    measured: Measured
    given: Assumptions = Assumptions()
    size: int = 224
    batch: int = 256
    decoder: str = "exact"
    eval_cache: bool = False
    epochs: int = EPOCHS

    def __post_init__(self) -> None:
        if self.batch % self.gpus:
            raise UsageError(f"batch {self.batch} does not divide by {self.gpus} GPUs")

    # ---- the step

    @property
    def config(self) -> dict[str, Any]:
        return VIT_B | {"image_size": self.size}

    @property
    def micro_batch(self) -> int:
        return min(MICRO_BATCH, self.batch // self.gpus)

    @property
    def accumulated(self) -> int:
        return self.batch // self.gpus // self.micro_batch

    @property
    def flops(self) -> float:
        """Of training on one image: forward once, backward twice as much."""
        return 3 * vit_flops(self.config)

    @property
    def arithmetic(self) -> float:
        """Of one micro-batch, as if the GPU were kept as busy as by a large one."""
        attained = self.given.matmul_tflops * 1e12 * self.given.utilisation
        return self.micro_batch * self.flops / attained

    @property
    def a_pass(self) -> float:
        return max(self.arithmetic, self.given.step_floor_ms / 1000)

    @property
    def all_reduce(self) -> float:
        """float32 gradients, once a step."""
        within = self.gpus <= self.given.gpus_per_machine
        bandwidth = self.given.nvlink_GBps if within else self.given.network_GBps
        return ring_seconds(self.gpus, 4 * self.parameters, bandwidth * 1e9)

    @property
    def not_hidden(self) -> float:
        return max(0.0, self.all_reduce - self.given.overlap * BACKWARD * self.a_pass)

    @property
    def step(self) -> float:
        return self.accumulated * self.a_pass + self.not_hidden

    @property
    def step_rate(self) -> float:
        return self.batch / self.step

    @property
    def limit_rate(self) -> float:
        """At the whole matmul rate."""
        return self.gpus * self.given.matmul_tflops * 1e12 / self.flops

    @property
    def utilisation_left(self) -> float:
        return self.step_rate / self.limit_rate

    @property
    def parameters(self) -> int:
        return vit_parameters(self.config, CLASSES)

    # ---- the input

    @property
    def working(self) -> float:
        """Workers of all ranks, in processes that run alone on a core."""
        return self.gpus * self.given.workers * self.given.worker_efficiency

    @property
    def pixel_cost(self) -> float:
        return 1.0 if self.size == 224 else self.given.cost_at_384

    def input_rate(self, decoder: str) -> float | None:
        """None for a cache whose images are smaller than the model's."""
        if decoder == CACHED and self.size > 256:
            return None
        return images_per_second(self.measured.input_ms[decoder] * self.pixel_cost, self.working)

    @property
    def rate(self) -> float:
        return min(self.step_rate, self.input_rate(self.decoder))

    def workers_needed(self, decoder: str) -> int:
        """On each GPU, to keep up with the step."""
        one = images_per_second(self.measured.input_ms[decoder] * self.pixel_cost, 1)
        return math.ceil(self.step_rate / self.gpus / (one * self.given.worker_efficiency))

    @property
    def num_selection(self) -> int:
        return math.ceil(TRAIN * SELECTION_FRACTION)

    @property
    def steps_per_epoch(self) -> int:
        return (TRAIN - self.num_selection) // self.batch

    @property
    def epoch(self) -> float:
        """Training alone: what is slower, step or input; workers decode while the GPU computes."""
        return self.steps_per_epoch * self.batch / self.rate

    # ---- evaluation

    def evaluation(self, images: int, tflops: float, cached: bool) -> float:
        """What is slower, forward or input, for the rank with the most images."""
        share = math.ceil(images / self.gpus)
        forward = tflops * 1e12 / vit_flops(self.config)
        if cached:  # read by the main process; the bytes of an image grow with its pixels
            ms = self.measured.cached_ms * (self.size / 224) ** 2
            return share / min(forward, images_per_second(ms, 1))
        decoded = images_per_second(self.measured.eval_ms * self.pixel_cost, self.working)
        return share / min(forward, decoded / self.gpus)

    def selection(self, cached: bool) -> float:
        """bf16, as in training."""
        return self.evaluation(
            self.num_selection, self.given.matmul_tflops * self.given.utilisation, cached
        )

    def test(self, cached: bool) -> float:
        """The reported number is computed in float32, without TF32."""
        return self.evaluation(TEST, self.given.float32_tflops, cached)

    @property
    def cache_bytes(self) -> int:
        return (self.num_selection + TEST) * 3 * self.size**2

    @property
    def filling(self) -> float:
        """Once on each machine, by all its cores, before anything is scored."""
        processes = self.machine_cores * self.given.worker_efficiency
        decode = images_per_second(self.measured.fill_ms * self.pixel_cost, processes)
        written = self.cache_bytes / (self.given.checkpoint_GBps * 1e9)
        return max((self.num_selection + TEST) / decode, written)

    # ---- the rest

    @property
    def machine_cores(self) -> int:
        return int(self.given.cores_per_gpu * min(self.gpus, self.given.gpus_per_machine))

    @property
    def scan(self) -> float:
        """Every image is decoded once, by the first machine, before the first step."""
        seconds = 0.0
        for images in (TRAIN, TEST):
            processes = min(self.machine_cores, images // SCAN_IMAGES_A_PROCESS)
            working = processes * self.given.worker_efficiency
            seconds += images / images_per_second(self.measured.scan_ms, working)
        return seconds

    @property
    def start(self) -> float:
        given = self.given
        compiled = given.compile_s if given.torch_compile else 0
        return given.launch_s + self.measured.start_s + given.device_s + compiled

    @property
    def checkpoint_bytes(self) -> int:
        """Weights and the two averages of AdamW, float32."""
        return 3 * 4 * self.parameters

    @property
    def checkpoint(self) -> float:
        """Written by rank 0 while all wait."""
        return self.checkpoint_bytes / (self.given.checkpoint_GBps * 1e9)

    def parts(self) -> dict[str, float]:
        """Where the seconds of the whole run go."""
        found = {
            "start-up": self.start + self.given.first_batch_s,
            "scan": self.scan,
            "training": self.epochs * self.epoch,
            "evaluation": self.epochs * self.selection(self.eval_cache)
            + self.test(self.eval_cache),
            "checkpoints": self.epochs * self.checkpoint,
            "pauses and finish": self.epochs * self.given.epoch_pause_s + self.given.finish_s,
        }
        return found | ({"filling the cache": self.filling} if self.eval_cache else {})

    @property
    def total(self) -> float:
        return sum(self.parts().values())

    @property
    def gpu_hours(self) -> float:
        return self.gpus * self.total / 3600

    @property
    def cost(self) -> float:
        return self.gpu_hours * self.given.price_per_gpu_hour
