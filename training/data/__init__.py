"""Which images and labels there are, and where they lie: knows no network, no batch and no run."""
