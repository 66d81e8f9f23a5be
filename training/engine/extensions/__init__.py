"""Features of training, a file each: see `training.engine.extension`, and the list in `training.engine.wiring`."""
