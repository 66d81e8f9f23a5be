"""What a user of a published model runs: knows neither `training` nor `model_card`; `apps` does."""
