"""Choose by the recipe's `tune` how a run's trainer is built, and whether a phase comes before it."""

from __future__ import annotations

from training.config.recipe import Recipe
from training.data.splits import Splits
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
    if recipe.method.tune == "linear_probe":
        return build_probe(network, splits, settings, recipe.probe, cache_gb)
    if recipe.method.tune == "probe_then_full":
        return build_after_probe(network, splits, settings, cache_gb)
    return build_trainer(network, splits, settings, cache_gb)


def run_first_phase(run: Run, network: Network, splits: Splits) -> None:
    """Train the heads that probe_then_full starts from, or read them where an earlier process did.

    With any other method nothing is done.

    Raises:
        UserError: the network or the images cannot do what the recipe asks; see `probe_first`.
    """
    if run.recipe.method.tune != "probe_then_full":
        return
    with run.stage("probe"):
        probe_first(
            network,
            splits,
            run.recipe.settings,
            run.recipe.probe,
            eval_cache_gb=run.recipe.data.eval_cache_gb,
            checkpoint=run.checkpoint,
            probe_checkpoint=run.probe_checkpoint,
        )
