"""Fine-tune, evaluate, release: the table of contents of a run.

    accelerate launch --config_file accelerate_config.yaml -m training.train vit_base_food101

The same command works on any number of processes; `food101 train RECIPE` chooses it for you.
"""

from __future__ import annotations

import sys


def main(argv: list[str] | None = None) -> None:
    """Run one recipe; writes `output_dir` and nothing else.

    Raises:
        UserError: something a person can mend; see `training.console.exit_on_user_error`.
    """
    from training.config.recipe import parse_recipe
    from training.data.loading import load_splits
    from training.engine.wiring import build_trainer
    from training.hub.release import release_run
    from training.model.create import build_network
    from training.probe.phases import build_after_probe, build_probe, probe_first
    from training.run.console import report
    from training.run.folder import Run

    recipe = parse_recipe(sys.argv[1:] if argv is None else argv)
    run = Run.open(recipe)
    if run.is_finished:
        return report(run)
    with run.stage("data"):
        splits = load_splits(recipe.data)
    with run.stage("model"):
        network = build_network(recipe.model, splits.label_names, recipe.training.seed)
    builders = {"linear_probe": build_probe, "probe_then_full": build_after_probe}
    build = builders.get(recipe.training.tune, build_trainer)
    trainer = build(network, splits, recipe.training, recipe.data.eval_cache_gb)
    run.start(trainer, network, splits)
    if recipe.training.tune == "probe_then_full":
        with run.stage("probe"):
            probe_first(run, network, splits)
    with run.stage("train"):
        trainer.train(resume_from_checkpoint=run.checkpoint)
    run.save_model(trainer)
    with run.stage("evaluate"):
        run.evaluate(splits)
    run.finish(trainer)
    run.on_main(release_run, run.folder, run.folder / "release")
    report(run)


if __name__ == "__main__":
    from training.run.console import exit_on_user_error

    with exit_on_user_error():
        main()
