"""YAML and command line to a checked recipe: knows no image, no network and no run folder."""
