"""Finished runs beside each other: accuracy image by image, and speed."""
