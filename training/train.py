"""Fine-tune, evaluate, release: the table of contents of a run.

    accelerate launch --config_file accelerate_config.yaml -m training.train vit_base_food101

The same command works on any number of processes; `food101 train RECIPE` chooses it for you.
"""

from __future__ import annotations

import sys


def main(argv: list[str] | None = None) -> None:
    """Run one recipe; writes `output_dir` and nothing else.

    Args:
        argv: [RECIPE, --key, value, ...]; None takes the command line.

    Raises:
        UserError: something a person can mend; see `training.run.console.exit_on_user_error`.
    """
    from training.config.recipe import parse_recipe
    from training.data.loading import load_splits
    from training.hub.release import release_run
    from training.model.create import build_network
    from training.run.console import report, way_on_of
    from training.run.folder import Run
    from training.run.methods import build_trainer_of, run_first_phase
    from training.run.not_food import check_not_food, fit_not_food
    from training.run.trust import trust

    recipe = parse_recipe(sys.argv[1:] if argv is None else argv)
    run = Run.open(recipe)
    if run.is_finished:
        if not (run.folder / "release").is_dir():  # interrupted just before
            run.on_main(release_run, run.folder, run.folder / "release")
        return report(run)
    with way_on_of(run):
        with run.stage("data"):
            splits = load_splits(recipe.data)
        with run.stage("model"):
            network = build_network(recipe.model, splits.label_names, recipe.training.seed)
        check_not_food(recipe, network, splits)
        trainer = build_trainer_of(recipe, network, splits)
        run.start(trainer, network, splits)
        run_first_phase(run, trainer, splits)
        with run.stage("train"):
            trainer.train(resume_from_checkpoint=run.checkpoint)
        run.save_model(trainer)
        with run.stage("trust"):
            trust(run, splits)
        fit_not_food(run, splits)
        with run.stage("evaluate"):
            run.evaluate(splits)
        run.finish(trainer)
        run.on_main(release_run, run.folder, run.folder / "release")
        report(run)


if __name__ == "__main__":
    # Before seconds of imports, in which the process can be told to end as well.
    from training.common.signals import exit_on_interrupt

    with exit_on_interrupt():
        from training.run.console import exit_on_user_error

        with exit_on_user_error():
            main()
