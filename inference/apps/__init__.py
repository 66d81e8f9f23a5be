"""Programs around a released model: use the rooms of `training` that load it, know no run."""
