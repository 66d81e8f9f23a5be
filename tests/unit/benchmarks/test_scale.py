"""docs/scale.md holds what benchmarks/scale.py prints now, and its formulas give hand-made sums."""

import importlib
import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from training.common.machine import IMAGES_A_WORKER
from training.data.partition import selection_fraction_of

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "scale.md"


@pytest.fixture
def scale(monkeypatch):
    """The module as `python benchmarks/scale.py` finds it; common.py sets environment variables."""
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    for name in ("HF_HUB_OFFLINE", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "1" if name == "HF_HUB_OFFLINE" else "PASSIVE")
    before = set(sys.modules)
    yield importlib.import_module("scale")
    for name in set(sys.modules) - before:
        if str(ROOT / "benchmarks") in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def measured(scale, **more):
    """Round figures: 2 ms an image, the cache of training images twice as fast."""
    ways = {name: 2.0 for name in scale.INPUT} | {scale.CACHED: 1.0}
    values = {"input_ms": ways, "eval_ms": 2.0, "scan_ms": 1.0, "start_s": 7.0}
    return scale.Measured(**values | more)


def case(scale, gpus, size=224, batch=256, known=None, **given):
    return scale.Case(gpus, known or measured(scale), scale.Assumptions(**given), size, batch)


# ---- the page ------------------------------------------------------------------------------------


def test_the_page_holds_what_the_script_prints(scale):
    now = scale.page_part(scale.Measured.read(), scale.Assumptions())
    assert scale.MARKS.get(PAGE.read_text(encoding="utf-8")) == now, (
        "run `python benchmarks/scale.py --write docs/scale.md` and read the prose again"
    )


def test_every_option_that_the_prose_names_exists(scale):
    text = PAGE.read_text(encoding="utf-8")
    options = {field.name for field in scale.dataclasses.fields(scale.Assumptions)}
    before, after = text.split(scale.MARKS.begin)[0], text.split(scale.MARKS.end)[1]
    prose = before + after
    named = {word.split("`")[0].split()[0] for word in prose.split("`--")[1:]}
    ours = {"write", "json", "short_side", "per_device_train_batch_size", "save_only_model"}
    ours |= {"total_train_batch_size", "batches", "photographs", "load_best_model_at_end"}
    ours |= {"save_strategy", "eval_strategy"}
    assert named <= options | ours, named - options - ours


def test_the_recipe_is_the_one_that_is_calculated(scale):
    model = sys.modules["scale_model"]
    recipe = yaml.safe_load((ROOT / "training/recipes/vit_base_food101.yaml").read_text())
    assert recipe["num_train_epochs"] == model.EPOCHS
    assert recipe["total_train_batch_size"] == case(scale, 1).batch
    assert "selection_fraction" not in recipe
    assert selection_fraction_of(model.TRAIN) == model.SELECTION_FRACTION
    assert recipe["per_device_train_batch_size"] == model.MICRO_BATCH
    code = "".join(path.read_text() for path in (ROOT / "training").rglob("*.py"))
    assert f"min({model.MAX_WORKERS}, share" in code  # workers of a process
    assert model.SCAN_IMAGES_A_PROCESS == IMAGES_A_WORKER


def test_write_replaces_the_place_between_the_marks(scale, tmp_path, capsys, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{scale.MARKS.begin}\nold\n{scale.MARKS.end}\nafter\n")
    file = tmp_path / "scale.json"
    argv = ["--write", str(page), "--json", str(file), "--price_per_gpu_hour", "4"]
    monkeypatch.setattr(sys, "argv", ["scale.py", *argv])
    assert scale.main(argv) == 0
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert scale.MARKS.get(text) == capsys.readouterr().out.strip("\n")
    assert "| `--price_per_gpu_hour` | 4 | dollars | given on the command line |" in text
    runs = json.loads(file.read_text())["runs"]
    assert len(runs) == 8 and runs[0]["cost"] == pytest.approx(4 * runs[0]["gpu_hours"])
    with pytest.raises(scale.UsageError, match="the page needs the lines"):
        scale.MARKS.put("no marks", "text")


# ---- what is missing -----------------------------------------------------------------------------


@pytest.fixture
def results(tmp_path) -> Path:
    for name in ("input", "startup", "dataloader", "ranks"):
        shutil.copy(RESULTS / f"{name}.json", tmp_path)
    return tmp_path


def test_without_the_evaluation_benchmark_the_page_says_so_and_guesses_nothing(scale, results):
    found = scale.Measured.read(results)
    assert found.cached_ms is None and found.fill_ms is None
    text = scale.page_part(found, scale.Assumptions(), results)
    assert "| evaluation input from the uint8 cache | not recorded |" in text
    assert "benchmarks/evaluation.py --json" in text and "from the cache, s" not in text


def test_with_it_the_cache_has_rows_of_its_own(scale, results):
    record = json.loads((results / "startup.json").read_text())
    rows = [
        ("later evaluation input", "ours, decoded again", "cpu", 2.0),
        ("later evaluation input", "ours, from the cache", "cpu", 0.02),
        ("later evaluation input", "ours, from the cache", "wall", 9.0),
        ("first evaluation input", "ours, filling the cache", "wall", 2.5),
    ]
    keys = ("group", "name", "clock")
    record["rows"] = [dict(zip(keys, r, strict=False), ms=spread(r[3])) for r in rows]
    (results / "evaluation.json").write_text(json.dumps(record))
    found = scale.Measured.read(results)
    assert (found.cached_ms, found.fill_ms) == (0.02, 2.5)
    text = scale.page_part(found, scale.Assumptions(), results)
    assert text.count("| filling the cache, s, once |") == 2
    assert "| `eval_cache_gb` | 100.00 x on one core, once filled |" in text
    record["rows"].pop()
    (results / "evaluation.json").write_text(json.dumps(record))
    with pytest.raises(scale.UsageError, match="no row 'ours, filling the cache'"):
        scale.Measured.read(results)


def spread(ms):
    return {"median": ms, "min": 0.9 * ms, "max": 1.1 * ms}


def test_a_missing_file_is_named_with_the_command_that_makes_it(scale, results):
    (results / "input.json").unlink()
    with pytest.raises(scale.UsageError, match="no input.json .*python benchmarks/input.py"):
        scale.Measured.read(results)


@pytest.mark.parametrize(
    "given", [{"utilisation": 0}, {"utilisation": 1.2}, {"network_GBps": float("nan")}]
)
def test_an_impossible_assumption_is_refused(scale, given):
    with pytest.raises(scale.UsageError, match=f"--{next(iter(given))} is "):
        scale.Assumptions(**given)


def test_a_mistake_on_the_command_line_is_one_line_and_exit_code_2(scale, capsys):
    assert scale.main(["--matmul_tflops", "-1"]) == 2
    assert capsys.readouterr().out == "--matmul_tflops is -1.0: give a positive number\n"


# ---- the formulas, by hand -----------------------------------------------------------------------


def test_parameters_are_the_published_ones(scale):
    model = sys.modules["scale_model"]
    assert model.vit_parameters(model.VIT_B, 1000) == 86_567_656  # as published, ImageNet head
    assert model.vit_parameters(model.VIT_B, 101) == 85_876_325


def test_the_step_of_one_gpu_is_arithmetic_alone(scale):
    """64 x 105.3 GFLOP at 360 TFLOP/s = 18.7 ms, four times; 281 steps in an epoch."""
    one = case(scale, 1)
    assert (one.micro_batch, one.accumulated, one.steps_per_epoch) == (64, 4, 281)
    assert one.num_selection == 3788
    assert one.flops == pytest.approx(105.4e9, rel=2e-3)
    assert one.step == pytest.approx(4 * 64 * one.flops / 360e12) and one.all_reduce == 0
    assert one.utilisation_left == pytest.approx(0.45)
    assert one.step_rate == pytest.approx(3415, rel=2e-3)


def test_few_images_a_gpu_leave_the_floor(scale):
    eight = case(scale, 8)
    assert eight.arithmetic == pytest.approx(32 * eight.flops / 360e12)
    assert eight.a_pass == 0.012 and eight.step == pytest.approx(0.012)
    assert case(scale, 8, step_floor_ms=1).step == pytest.approx(eight.arithmetic)
    assert case(scale, 64).micro_batch == 4


def test_all_reduce_is_a_ring_and_hides_behind_the_backward_pass(scale):
    """2 x 7/8 x 343.5 MB / 300 GB/s = 2.0 ms; 2 x 63/64 x 343.5 MB / 40 GB/s = 16.9 ms, of which
    0.8 x 2/3 x 12 ms = 6.4 ms are hidden."""
    assert case(scale, 8).all_reduce == pytest.approx(2.004e-3, rel=1e-3)
    many = case(scale, 64)
    assert many.all_reduce == pytest.approx(16.907e-3, rel=1e-3)
    assert many.not_hidden == pytest.approx(10.507e-3, rel=1e-3)
    assert many.step == pytest.approx(22.507e-3, rel=1e-3)
    assert case(scale, 64, overlap=0).not_hidden == many.all_reduce
    assert case(scale, 16).all_reduce > case(scale, 8).all_reduce * 7  # it leaves the machine


def test_the_slower_of_step_and_input_makes_the_epoch(scale):
    """15 workers x 500/s x 0.8 = 6,000/s a GPU; with 4 cores 4 x 500 x 0.8 = 1,600/s."""
    fast, slow = case(scale, 1), case(scale, 1, cores_per_gpu=4)
    assert fast.input_rate("exact") == pytest.approx(6000)
    assert slow.input_rate("exact") == pytest.approx(1600)
    assert fast.epoch == pytest.approx(281 * fast.step)
    assert slow.epoch == pytest.approx(281 * 256 / 1600)
    assert scale.slower(fast) == "step" and scale.slower(slow) == "input"
    assert fast.workers_needed("exact") == 9  # 3,415 / 400
    assert fast.input_rate(scale.CACHED) == pytest.approx(12_000)
    assert case(scale, 1, 384).input_rate("exact") == pytest.approx(4000)
    assert case(scale, 1, 384).input_rate(scale.CACHED) is None
    assert case(scale, 1, cores_per_gpu=40).given.workers == 16  # the product's own limit


def test_evaluation_start_and_checkpoint(scale):
    """Test split in float32: 25,250 x 35.1 GFLOP / 40 TFLOP/s = 22.2 s, whatever the input."""
    known = measured(scale, cached_ms=0.1, fill_ms=2.5)
    one, eight = case(scale, 1, known=known), case(scale, 8, known=known)
    assert one.test(cached=False) == one.test(cached=True) == pytest.approx(22.2, rel=2e-3)
    assert one.selection(cached=False) == pytest.approx(3788 / 6000)  # decoding
    assert one.selection(cached=True) == pytest.approx(3788 / 10_000)  # 0.1 ms a copy
    assert eight.selection(cached=True) == pytest.approx(474 / 10_000)  # the fullest rank
    assert one.filling == pytest.approx(29_038 * 2.5e-3 / (16 * 0.8))
    assert case(scale, 1, known=known, checkpoint_GBps=0.1).filling == pytest.approx(43.7, rel=1e-3)
    assert one.scan == pytest.approx((75.75 + 25.25) / (16 * 0.8))
    assert eight.scan == pytest.approx(75.75 / (128 * 0.8) + 25.25 / (98 * 0.8))
    assert one.checkpoint == pytest.approx(12 * 85_876_325 / 1e9)
    assert one.start == 16 and case(scale, 1, torch_compile=1).start == 76


def test_the_total_is_the_sum_and_the_cost_follows(scale):
    run = case(scale, 8)
    parts = {
        "start-up": 18.0,
        "scan": 75.75 / (128 * 0.8) + 25.25 / (98 * 0.8),
        "training": 10 * 281 * 0.012,
        "evaluation": 10 * run.selection(False) + run.test(False),
        "checkpoints": 10 * 12 * 85_876_325 / 1e9,
        "pauses and finish": 20.0,
    }
    assert run.parts() == pytest.approx(parts)
    assert run.total == pytest.approx(sum(parts.values()))
    assert run.cost == pytest.approx(8 * run.total / 3600 * 2.5)
    known = measured(scale, cached_ms=0.1, fill_ms=2.5)
    cached = scale.with_cache(case(scale, 8, known=known))
    assert cached.parts()["filling the cache"] == cached.filling > 0


def test_a_batch_that_does_not_divide_is_refused(scale):
    with pytest.raises(scale.UsageError, match="batch 256 does not divide by 3 GPUs"):
        case(scale, 3)
