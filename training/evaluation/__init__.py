"""What a saved model is worth: scores, metrics, sections, and the report that holds them."""
