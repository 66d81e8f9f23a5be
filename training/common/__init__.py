"""Errors, files, locks, progress lines and the machine: knows no image, no network and no run."""
