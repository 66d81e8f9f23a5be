"""What a user of a published model runs. Imports nothing from `training` or `model_card`."""
