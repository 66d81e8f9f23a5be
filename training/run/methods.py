"""Choose by what the recipe's `tune` means how a run's trainer is built, and whether a phase comes before it."""

from __future__ import annotations

from training.config.recipe import Recipe
from training.data.splits import Splits
from training.engine.arguments import HEAD_ALONE
from training.engine.trainer import BaseTrainer
from training.engine.wiring import build_trainer
from training.model.network import Network
from training.probe.phases import build_after_probe, build_probe, probe_first
from training.run.folder import Run


def build_trainer_of(recipe: Recipe, network: Network, splits: Splits) -> BaseTrainer:
    """Build the trainer of a run's last phase; of most methods it is the only one.

    Raises:
        UserError: the network or the images cannot do what the recipe asks.
    """
    settings, cache_gb = recipe.settings, recipe.data.eval_cache_gb
    if recipe.method.tuning.trains == HEAD_ALONE:
        return build_probe(network, splits, settings, recipe.probe, cache_gb)
    if recipe.method.tuning.probes_first:
        return build_after_probe(network, splits, settings, cache_gb)
    return build_trainer(network, splits, settings, cache_gb)


def run_first_phase(run: Run, trainer: BaseTrainer, splits: Splits) -> None:
    """Find the head that the last phase starts from, or read it where an earlier process did.

    With a method that has no first phase nothing is done.

    Args:
        trainer: of the last phase; its network gets the head.

    Raises:
        UserError: the network or the images cannot do what the recipe asks; see `probe_first`.
    """
    if not run.recipe.method.tuning.probes_first:
        return
    # A probe is of the network itself: adapters of the last phase are there already.
    with run.stage("probe"), trainer.method.set_aside():
        probe_first(
            trainer.network,
            splits,
            run.recipe.settings,
            run.recipe.probe,
            eval_cache_gb=run.recipe.data.eval_cache_gb,
            checkpoint=run.checkpoint,
            probe_checkpoint=run.probe_checkpoint,
        )
