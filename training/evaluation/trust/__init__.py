"""How sure a saved model is: temperature, thresholds, sets and the distance from food, and what became of them."""
