# SPDX-License-Identifier: Apache-2.0
"""Outlines, colours and a surface to draw on: what the dishes of the sample are made of.

Outlines are points (num_points, 2) in and around the unit circle; `y` grows downwards.
"""

from __future__ import annotations

import colorsys
from math import cos, pi, sin, sqrt

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike
from PIL.ImageDraw import ImageDraw

Colour = tuple[int, ...]  # red, green, blue and, where it is translucent, opacity: 0 to 255
Range = tuple[float, float]


def superellipse(power: float, points: int = 28) -> np.ndarray:
    """Make an outline (points, 2) between a circle (`power` 2) and a square (large `power`)."""
    wave = polar(1.0, np.linspace(0, 2 * pi, points, endpoint=False))
    return np.sign(wave) * np.abs(wave) ** (2 / power)


def polar(radius: ArrayLike, angle: ArrayLike) -> np.ndarray:
    """Turn polar coordinates, of any shape, into x and y along a new last axis."""
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)


def wavy(rng: Generator, depth: float, waves: int) -> np.ndarray:
    """Make a circle with an uneven rim: icing, melting cream."""
    angle = np.linspace(0, 2 * pi, 40, endpoint=False)
    rim = np.sin(waves * angle + rng.uniform(0, 6)) + np.sin((waves - 2) * angle) / 2
    return polar(1 + depth * rim, angle)


def sector(start: float, stop: float, points: int = 9) -> np.ndarray:
    """Make a round slice with its tip at the origin, between two angles in radians."""
    return np.vstack([[(0.0, 0.0)], polar(1.0, np.linspace(start, stop, points))])


def ring(outline: np.ndarray, hole: float) -> np.ndarray:
    """Cut a round hole of radius `hole` into an outline.

    It is one polygon, out along the rim and back along the hole: the table shows through.
    """
    return np.vstack(
        [outline, outline[:1], CIRCLE[:1] * hole, CIRCLE[::-2] * hole, CIRCLE[:1] * hole]
    )


def scatter(rng: Generator, count: int, inner: float, outer: float) -> np.ndarray:
    """Draw `count` points (count, 2), about evenly in the ring between two radii."""
    angle = np.linspace(0, 2 * pi, count, endpoint=False) + rng.uniform(0, 0.5, count)
    return polar(np.sqrt(rng.uniform(inner**2, outer**2, count)), angle)


CIRCLE = superellipse(2.0, 36)
ROUNDED = superellipse(5.0)
BAR = superellipse(4.0, 20)
DOT = superellipse(2.0, 12)
WEDGE = sector(-0.41, 0.41) - (0.6, 0.0)
BOX = np.array([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)])


def colour(
    rng: Generator,
    hue: Range = (0.0, 1.0),
    strength: Range = (0.3, 0.8),
    value: Range = (0.45, 0.95),
) -> Colour:
    """Draw a colour; the ranges are hue, saturation and value of HSV, each from 0 to 1."""
    hsv = rng.uniform(*hue) % 1, rng.uniform(*strength), rng.uniform(*value)
    return tuple(int(255 * channel) for channel in colorsys.hsv_to_rgb(*hsv))


def baked(rng: Generator) -> Colour:
    """Draw the colour of a crust: between orange and yellow."""
    return colour(rng, (0.06, 0.12), (0.4, 0.75), (0.5, 0.92))


def pale(rng: Generator) -> Colour:
    """Draw the colour of cream or rice: nearly white."""
    return colour(rng, strength=(0.0, 0.2), value=(0.8, 1.0))


def shade(base: Colour, factor: float) -> Colour:
    """Make a colour darker (`factor` under 1) or lighter."""
    return tuple(min(255, int(channel * factor)) for channel in base[:3])


class Sketch:
    """A drawing surface with its own axes, so that parts nest, turn and lie on a tilted table.

    Args:
        pens: the first for opaque colours; the second blends translucent ones, which Pillow does
            several times slower.
        origin: where (0, 0) is, in pixels (2,).
        axes: what (1, 0) and (0, 1) are in pixels, the columns of (2, 2).
        up: what a height of 1 is in pixels (2,); 0 for a surface that faces the viewer.
    """

    def __init__(
        self,
        pens: tuple[ImageDraw, ImageDraw],
        origin: np.ndarray,
        axes: np.ndarray,
        up: np.ndarray,
    ) -> None:
        self.pens, self.origin, self.axes, self.up = pens, origin, axes, up

    def part(
        self,
        x: float = 0.0,
        y: float = 0.0,
        scale: float = 1.0,
        angle: float = 0.0,
        tilt: float = 1.0,
    ) -> Sketch:
        """Make a surface inside this one; `tilt` < 1 lays it down, and heights then show."""
        turn = np.array([(cos(angle), -sin(angle)), (sin(angle), cos(angle))]) * scale
        axes = self.axes @ np.diag((1.0, tilt)) @ turn
        up = (self.up + self.axes @ (0.0, -sqrt(1 - tilt * tilt))) * scale
        return Sketch(self.pens, self.at([(x, y)])[0], axes, up)

    def at(self, points: ArrayLike, z: float = 0.0) -> np.ndarray:
        """Map points (..., 2) at height `z` to pixels (..., 2)."""
        return self.origin + np.asarray(points) @ self.axes.T + z * self.up

    def polygon(self, pixels: list[float], fill: Colour) -> None:
        """Fill a polygon that is given in pixels: x, y, x, y, and so on."""
        self.pens[len(fill) - 3].polygon(pixels, fill=fill)

    def shape(
        self,
        outline: ArrayLike,
        fill: Colour,
        x: float = 0.0,
        y: float = 0.0,
        rx: float = 1.0,
        ry: float | None = None,
        z: float = 0.0,
    ) -> None:
        """Fill an outline around (x, y) at height `z`, scaled by `rx` and `ry` (None: `rx`)."""
        points = np.asarray(outline) * (rx, rx if ry is None else ry) + (x, y)
        self.polygon(self.at(points, z).ravel().tolist(), fill)

    def tiles(
        self,
        outline: np.ndarray,
        fill: Colour,
        centres: np.ndarray,
        rx: float,
        ry: float | None = None,
        z: float = 0.0,
    ) -> None:
        """Fill one outline at many places; they are mapped to pixels all at once."""
        shapes = outline * (rx, ry or rx) + np.reshape(centres, (-1, 1, 2))
        for pixels in self.at(shapes, z).reshape(len(shapes), -1).tolist():
            self.polygon(pixels, fill)

    def relief(
        self,
        outline: ArrayLike,
        fill: Colour,
        x: float = 0.0,
        y: float = 0.0,
        rx: float = 1.0,
        ry: float | None = None,
        z: float = 0.0,
    ) -> None:
        """Fill a shape with a dark edge away from the light, which comes from the top left."""
        ry = rx if ry is None else ry
        self.shape(outline, shade(fill, 0.7), x, y, rx, ry, z)
        self.shape(outline, fill, x - 0.05 * rx, y - 0.08 * ry, 0.9 * rx, 0.88 * ry, z)

    def line(self, points: ArrayLike, fill: Colour, width: float, z: float = 0.0) -> None:
        """Draw a line through points; `width` is in units of this surface, one pixel at least."""
        pixels = max(1, round(width * np.linalg.norm(self.axes[:, 0])))
        path = self.at(points, z).ravel().tolist()
        self.pens[len(fill) - 3].line(path, fill=fill, width=pixels)

    def shadow(
        self,
        outline: ArrayLike,
        x: float = 0.0,
        y: float = 0.0,
        rx: float = 1.0,
        ry: float | None = None,
    ) -> None:
        """Darken the surface under a shape and a little to its lower right."""
        wide, tall = 1.05 * rx, 1.05 * (rx if ry is None else ry)
        self.shape(outline, (0, 0, 0, 80), x + 0.05 * rx, y + 0.07 * rx, wide, tall)

    def prism(self, outline: ArrayLike, low: float, high: float, fill: Colour, top: Colour) -> None:
        """Draw a convex solid between two heights: walls that face the viewer, then its top."""
        floor, roof = self.at(outline, low), self.at(outline, high)
        edges = np.roll(floor, -1, axis=0) - floor
        x, y = floor.T
        winding = np.sign(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))
        normals = np.stack([edges[:, 1], -edges[:, 0]], axis=1) * winding
        light = 0.8 - 0.2 * normals[:, 0] / (np.linalg.norm(edges, axis=1) + 1e-9)
        low_edge, high_edge = floor.tolist(), roof.tolist()
        for i in np.flatnonzero(normals @ self.up < 0):
            j = (i + 1) % len(floor)
            wall = [*low_edge[i], *low_edge[j], *high_edge[j], *high_edge[i]]
            self.polygon(wall, shade(fill, light[i]))
        self.polygon(roof.ravel().tolist(), top)

    def ball(self, x: float, y: float, radius: float, fill: Colour, z: float = 0.0) -> None:
        """Draw a ball with a glint."""
        self.relief(DOT if radius < 0.15 else CIRCLE, fill, x, y, radius, z=z)
        glint = shade(fill, 1.5)
        self.shape(DOT, glint, x - 0.3 * radius, y - 0.36 * radius, 0.24 * radius, z=z)
