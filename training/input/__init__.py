"""Encoded images to a batch on the device: knows no network, no optimizer and no run."""
