# SPDX-License-Identifier: Apache-2.0
"""Time and cost of one Food-101 run on 1, 8 and 64 GPUs, on paper.

    python benchmarks/scale.py --cores_per_gpu 12 --price_per_gpu_hour 3
    python benchmarks/scale.py --write docs/scale.md

Measured is what one CPU core does (benchmarks/results/*.json); everything about a GPU, a network
or a disk is an assumption that can be set here. Prints Markdown; `--write` puts it between the
marks of a page. The formulas are in scale_model.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from common import command, write_json
from pages import Marks, UsageError
from scale_model import (
    CACHED,
    DECODE_ALONE,
    INPUT,
    LOOSE,
    RESULTS,
    Assumptions,
    Case,
    Measured,
    has_evaluation,
    load,
    median_ms,
    spread_ms,
)

MARKS = Marks.of("scale.py")
RUNS = ((1, 256), (8, 256), (64, 256), (64, 4096))  # GPUs, global batch
NOT_RECORDED = "not recorded"


def main(argv: list[str] | None = None) -> int:
    args = scale_parser().parse_args(argv)
    return MARKS.publish(lambda: compute(args), args.write)


def compute(args: argparse.Namespace) -> str:
    """Compute the page's part, and write everything as JSON where that was asked for."""
    names = [each.name for each in dataclasses.fields(Assumptions)]
    given, measured = Assumptions(**{name: getattr(args, name) for name in names}), Measured.read()
    if args.json:
        write_json(args.json, result(measured, given))
    return page_part(measured, given)


def scale_parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument("--json", metavar="FILE", type=Path, help="write the whole calculation there")
    p.add_argument("--write", metavar="PAGE", type=Path, help="put the tables into that page")
    for each in dataclasses.fields(Assumptions):
        text = f"{each.metadata['meaning']} (default {each.default:g})".replace("%", "%%")
        p.add_argument(f"--{each.name}", metavar="X", type=float, default=each.default, help=text)
    return p


def result(measured: Measured, given: Assumptions) -> dict[str, Any]:
    """For --json: inputs, assumptions, and every part of every run."""
    runs = [
        {
            **{"gpus": c.gpus, "image_size": c.size, "batch": c.batch},
            **{"step_s": c.step, "step_rate": c.step_rate, "parts_s": c.parts()},
            **{"total_s": c.total, "gpu_hours": c.gpu_hours, "cost": c.cost},
        }
        for size in (224, 384)
        for c in cases(measured, given, size)
    ]
    facts = {"measured": dataclasses.asdict(measured), "assumed": dataclasses.asdict(given)}
    return {"format": 1, "command": command(), **facts, "runs": runs}


def cases(measured: Measured, given: Assumptions, size: int, **more: Any) -> list[Case]:
    return [Case(gpus, measured, given, size, batch, **more) for gpus, batch in RUNS]


# ---- tables --------------------------------------------------------------------------------------


def page_part(measured: Measured, given: Assumptions, results: Path = RESULTS) -> str:
    parts = ["### Assumed", assumed_table(given), "### Measured", measured_table(measured, results)]
    for size in (224, 384):
        parts += [f"### At {size} pixels", run_table(cases(measured, given, size))]
    parts += ["### What if", what_if_table(measured, given)]
    parts += ["### Switches", "Ratios of medians over all rounds.", switch_table(results)]
    return "\n\n".join(parts)


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    aligned = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, aligned, *rows))


def text_table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    return markdown(head, rows).replace("---:", "---")


def number(x: float | None) -> str:
    """Three digits are more than a calculation on paper can promise."""
    if x is None:
        return "–"
    digits = 0 if abs(x) >= 100 else 1 if abs(x) >= 10 else 2
    return f"{x:,.{digits}f}"


def rough(x: float | None) -> str:
    """A rate: 3,415 -> 3,400."""
    return "–" if x is None else f"{float(f'{x:.2g}'):,.0f}"


def assumed_table(given: Assumptions) -> str:
    rows = []
    for each in dataclasses.fields(given):
        value, source = getattr(given, each.name), each.metadata["source"]
        if value != each.default:
            source = "given on the command line"
        rows.append((f"`--{each.name}`", f"{value:g}", each.metadata["meaning"], source))
    return text_table(("option", "value", "what it is", "source"), rows)


def measured_table(measured: Measured, results: Path) -> str:
    source = "`input.json`, train input"
    rows = [(f"training input, {name}", f"{ms:.2f} ms", source) for name, ms in ours(measured)]
    rows += [
        ("evaluation input", f"{measured.eval_ms:.2f} ms", "`input.json`, evaluation input"),
        (
            "decoding alone (the scan)",
            f"{measured.scan_ms:.2f} ms",
            f"`input.json`, {DECODE_ALONE}",
        ),
        ("evaluation input from the uint8 cache", recorded(measured.cached_ms), EVALUATION),
        ("decoding into that cache", recorded(measured.fill_ms), EVALUATION),
        (
            "`food101 predict` to its first label: imports, a model loaded, one image",
            f"{measured.start_s:.1f} s",
            "`startup.json`, first label",
        ),
    ]
    table = text_table(("an image on one core, or a command", "median", "from"), rows)
    return f"{table}\n\n{machine_line(results)}"


EVALUATION = "`evaluation.json`"


def ours(measured: Measured) -> list[tuple[str, float]]:
    return list(measured.input_ms.items())


def recorded(ms: float | None) -> str:
    return NOT_RECORDED if ms is None else f"{ms:.3f} ms"


def machine_line(results: Path) -> str:
    names = ["input.json", "startup.json", "dataloader.json", "ranks.json"]
    names += ["evaluation.json"] if has_evaluation(results) else []
    machines, dates = set(), set()
    for name in names:
        facts = load(results, name)["environment"]
        machines.add(f"{facts['cpu']}, {facts['cores']} cores, no GPU")
        dates.add(facts["date"][:10])
        if facts["gpu"]:
            raise UsageError(
                f"{name} was recorded beside a GPU: this page says that none was there"
            )
    missing = "" if has_evaluation(results) else (
        " The evaluation cache is left out of the tables until its benchmark is recorded: "
        "`python benchmarks/evaluation.py --json benchmarks/results/evaluation.json`."
    )  # fmt: skip
    return f"Recorded {' and '.join(sorted(dates))} on: {'; '.join(sorted(machines))}.{missing}"


def run_table(runs: list[Case]) -> str:
    def row(name: str, value: Callable[[Case], str]) -> tuple[str, ...]:
        return (name, *[value(case) for case in runs])

    has_cache = runs[0].measured.cached_ms is not None
    rows = [
        row("micro-batch of a GPU x micro-batches a step", batch_of),
        row("arithmetic of a micro-batch, ms", lambda c: number(1000 * c.arithmetic)),
        row("all-reduce, ms a step", lambda c: number(1000 * c.all_reduce)),
        row("of it not hidden, ms", lambda c: number(1000 * c.not_hidden)),
        row("step, ms", lambda c: number(1000 * c.step)),
        row("utilisation that is left", lambda c: f"{c.utilisation_left:.0%}"),
        row("images/s at the whole matmul rate", lambda c: rough(c.limit_rate)),
        row("**images/s of the step**", lambda c: rough(c.step_rate)),
    ]
    for name in INPUT:
        rows.append(row(f"images/s of the input, {name}", lambda c, n=name: rough(c.input_rate(n))))
    rows += [
        row("slower of step and input (exact)", slower),
        row("workers a GPU that keep up (exact)", lambda c: str(c.workers_needed("exact"))),
        row("**training, s an epoch**", lambda c: number(c.epoch)),
        row("selection slice, s an epoch", lambda c: number(c.selection(False))),
        row("checkpoint, s an epoch", lambda c: number(c.checkpoint)),
        row("test split in float32, s", lambda c: number(c.test(False))),
        *(cache_rows(row) if has_cache else []),
        *[
            row(f"{name}, s a run", lambda c, n=name: number(c.parts()[n]))
            for name in runs[0].parts()
        ],
        row("**total, s**", lambda c: number(c.total)),
        row("largest part", largest),
        row("**GPU-hours**", lambda c: number(c.gpu_hours)),
        row("**cost, dollars**", lambda c: number(c.cost)),
        row("speed-up that torch.compile must bring", compile_gain),
    ]
    return markdown(("", *map(title, runs)), rows)


def cache_rows(row: Callable) -> list[tuple[str, ...]]:
    return [
        row("selection slice from the cache, s an epoch", lambda c: number(c.selection(True))),
        row("test split from the cache, s", lambda c: number(c.test(True))),
        row("filling the cache, s, once", lambda c: number(c.filling)),
        row("total with the cache, first run, s", lambda c: number(with_cache(c).total)),
    ]


def with_cache(case: Case) -> Case:
    return dataclasses.replace(case, eval_cache=True)


def title(case: Case) -> str:
    return f"{case.gpus} GPU{'s' * (case.gpus > 1)}, batch {case.batch}"


def batch_of(case: Case) -> str:
    return f"{case.micro_batch} x {case.accumulated}"


def slower(case: Case) -> str:
    return "input" if case.input_rate("exact") < case.step_rate else "step"


def largest(case: Case) -> str:
    parts = case.parts()
    name = max(parts, key=parts.get)
    return f"{name} ({parts[name] / case.total:.0%})"


def compile_gain(case: Case) -> str:
    """Over all training, to earn back what compiling costs."""
    training = case.parts()["training"]
    left = training - case.given.compile_s
    return f"{training / left:.2f} x" if left > 0 else "none would do"


# ---- what if -------------------------------------------------------------------------------------


def what_if_table(measured: Measured, given: Assumptions) -> str:
    """Total seconds at 224 pixels after one change."""

    def row(name: str, changed: Assumptions, **more: Any) -> tuple[str, ...]:
        return (name, *[number(c.total) for c in cases(measured, changed, 224, **more)])

    rows = [row("as above", given)]
    changes = [
        {"cores_per_gpu": 8},
        {"cores_per_gpu": 4},
        {"worker_efficiency": 0.4},
        {"utilisation": 0.3},
        {"step_floor_ms": 24},
        {"network_GBps": 320},
        {"network_GBps": 10},
        {"checkpoint_GBps": 0.2},
        {"epoch_pause_s": 3},
    ]
    for change in changes:
        words = ", ".join(f"`{name}` {value:g}" for name, value in change.items())
        rows.append(row(words, dataclasses.replace(given, **change)))
    few = dataclasses.replace(given, cores_per_gpu=4)
    rows.append(row(f"`cores_per_gpu` 4 and {CACHED}", few, decoder=CACHED))
    way = "the Trainer example's way"
    rows.append(row(f"input {way}", given, decoder=way))
    rows.append(row(f"`cores_per_gpu` 8 and input {way}", eight(given), decoder=way))
    return markdown(("total s at 224 pixels", *map(title, cases(measured, given, 224))), rows)


def eight(given: Assumptions) -> Assumptions:
    return dataclasses.replace(given, cores_per_gpu=8)


# ---- switches ------------------------------------------------------------------------------------


def switch_table(results: Path) -> str:
    """Measured effects only; ratios of medians."""
    images, loader = load(results, "input.json"), load(results, "dataloader.json")
    exact, pillow = INPUT["exact"], INPUT["exact, Pillow only"]
    loose, cached = INPUT[LOOSE], INPUT[CACHED]
    one, two = (images, "train input"), (loader, "loader")
    ranks = (load(results, "ranks.json"), "training, whole command")
    pixels = images["pixel_difference_to_pillow"]
    alone, pair = 1000 / median_ms(*one, exact), 1000 / median_ms(*two, exact)
    rows = [
        (
            LOOSE,
            f"{gain(*one, exact, loose)} on one core, {gain(*two, exact, loose)} with two workers; "
            f"pixels move by {pixels[loose]['mean']:.1f} of 255 on average",
            "`input.json`, `dataloader.json`",
        ),
        (
            CACHED,
            f"{gain(*one, exact, cached)} on one core; pixels move by "
            f"{pixels[cached]['mean']:.1f} of 255 on average",
            "`input.json`",
        ),
        (
            "the extra `fast` (simplejpeg)",
            f"{gain(*one, pillow, exact)} on one core; "
            + ("the same pixels" if pixels[exact] == pixels[pillow] else "other pixels"),
            "`input.json`",
        ),
        (
            "`dataloader_num_workers`",
            f"two workers on two busy cores, main process included: {pair:.0f} images/s; one process "
            f"alone on a core: {alone:.0f} (CPU time); {pair / alone / 2:.2f} a worker",
            "`dataloader.json`, `input.json`",
        ),
        ("`eval_cache_gb`", cache_effect(results), EVALUATION),
        ("`torch_compile`", NOT_RECORDED + " on a GPU", "`gpu_train.py` measures it"),
        ("`save_strategy`, `eval_strategy`", NOT_RECORDED, "the tables above are paper"),
        (
            "more processes",
            f"2 ranks {gain(*ranks, '1 rank x 2 threads', '2 ranks x 1 thread')} as fast as 1 "
            "(ViT-Ti, two CPU cores)",
            "`ranks.json`",
        ),
    ]
    return text_table(("switch", "measured effect", "from"), rows)


def gain(result: dict[str, Any], group: str, slow: str, fast: str) -> str:
    """Ratio of the medians, and whether the readings are apart at all."""
    before, after = spread_ms(result, group, slow), spread_ms(result, group, fast)
    apart = after["max"] < before["min"] or before["max"] < after["min"]
    return f"{before['median'] / after['median']:.2f} x" + ("" if apart else " (ranges overlap)")


def cache_effect(results: Path) -> str:
    if not has_evaluation(results):
        return NOT_RECORDED
    later = (load(results, "evaluation.json"), "later evaluation input")
    return f"{gain(*later, 'ours, decoded again', 'ours, from the cache')} on one core, once filled"


if __name__ == "__main__":
    sys.exit(main())
