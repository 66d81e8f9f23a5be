"""The parts of the card: tables of results and set-up, and the blocks that show one JSON key each."""
