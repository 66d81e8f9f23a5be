# SPDX-License-Identifier: Apache-2.0
"""Ten dishes drawn as shapes, so that the sample data set needs neither network nor binaries.

A dish fills the unit circle; `y` grows downwards. `sketch` faces the viewer, `ground` is the table
top. Form names the dish, never colour: icing, scoops, toppings and boxes take any hue.
"""

from __future__ import annotations

from math import cos, pi, sin

import numpy as np
from numpy.random import Generator

from training.data.drawing import (
    BAR,
    BOX,
    CIRCLE,
    DOT,
    ROUNDED,
    WEDGE,
    Sketch,
    baked,
    colour,
    pale,
    polar,
    ring,
    scatter,
    sector,
    shade,
    wavy,
)


def cheesecake(sketch: Sketch, ground: Sketch, rng: Generator) -> None:
    """Draw a slice of layered cake with a glaze and berries."""
    cake = ground.part(scale=rng.uniform(1.55, 1.75), angle=-pi / 2 + rng.uniform(-0.9, 0.9))
    cake.shadow(WEDGE)
    cream, crumb, glaze = pale(rng), shade(baked(rng), 0.75), colour(rng)
    height = rng.uniform(0.38, 0.48)
    cake.prism(WEDGE, 0.0, 0.1, crumb, crumb)
    cake.prism(WEDGE, 0.1, height, cream, cream)
    cake.prism(WEDGE, height, height + 0.06, glaze, shade(glaze, 1.12))
    for i in range(rng.integers(1, 4)):
        berry = colour(rng, strength=(0.5, 0.95), value=(0.35, 0.9))
        cake.ball(0.22 - 0.2 * i, rng.uniform(-0.06, 0.06), 0.1, berry, height + 0.12)


def cheese_wedge(ground: Sketch, rng: Generator, x: float, y: float) -> None:
    """Draw one piece of cheese with holes, lying on the plate."""
    piece = ground.part(x, y, rng.uniform(0.8, 0.95), rng.uniform(-2.6, -0.6))
    rind = colour(rng, (0.06, 0.17), (0.15, 0.75), (0.7, 1.0))
    piece.shadow(WEDGE)
    piece.prism(WEDGE, 0.0, 0.3, rind, shade(rind, 1.12))
    holes = np.array([(0.2, 0.1), (0.0, -0.06), (0.24, -0.16), (-0.22, 0.02)])
    piece.tiles(DOT, shade(rind, 0.66), holes, rng.uniform(0.05, 0.085), z=0.3)


def grapes(ground: Sketch, rng: Generator, x: float, y: float) -> None:
    """Draw a hanging bunch of grapes, lying on the plate."""
    skin = colour(rng, strength=(0.3, 0.7), value=(0.3, 0.8))
    bunch = ground.part(x, y, 1.0, rng.uniform(-0.5, 0.5))
    bunch.shadow(CIRCLE, rx=0.36)
    bunch.line([(0.0, -0.3), (0.08, -0.52)], shade(skin, 0.5), 0.04)
    for row, count in enumerate((4, 3, 4, 3, 2, 1)):
        for i in range(count):
            bunch.ball((i - (count - 1) / 2) * 0.19, row * 0.13 - 0.3, 0.115, skin, 0.08)


def cheese_plate(sketch: Sketch, ground: Sketch, rng: Generator) -> None:
    """Draw two pieces of cheese, grapes and a few crackers."""
    side = rng.choice((-1, 1))
    cheese_wedge(ground, rng, -0.45 * side, -0.45)
    cheese_wedge(ground, rng, 0.5 * side, -0.35)
    grapes(ground, rng, -0.45 * side, 0.4)
    cracker, outline = baked(rng), (CIRCLE, ROUNDED)[rng.integers(2)]
    for i in range(rng.integers(3, 5)):
        disc = ground.part(0.48 * side + 0.17 * (i - 1), 0.45 + 0.05 * i, 0.25, 0.2 * i)
        disc.shadow(outline)
        disc.prism(outline, 0.0, 0.25, shade(cracker, 0.8), cracker)
        disc.tiles(BOX, shade(cracker, 0.6), scatter(rng, 6, 0.4, 0.6), 0.08, z=0.25)


def cup_cake(cake: Sketch, rng: Generator) -> None:
    """Draw one cup of pleated paper with tiers of cream and a cherry."""
    paper, cream = colour(rng), colour(rng, strength=(0.0, 0.5), value=(0.65, 1.0))
    cake.shadow(CIRCLE, 0.0, 0.92, 0.62, 0.14)
    edge = np.linspace(-1, 1, int(rng.integers(15, 21)))
    for i, (left, right) in enumerate(zip(edge[:-1], edge[1:], strict=True)):
        pleat = [(0.74 * left, 0.1), (0.74 * right, 0.1), (0.52 * right, 0.95), (0.52 * left, 0.95)]
        cake.shape(pleat, shade(paper, 1.05 if i % 2 else 0.72))
    tiers = int(rng.integers(3, 5))
    tall = 0.62 / tiers + 0.05
    for i in range(tiers):
        width, y = 0.86 * (1 - 0.75 * i / tiers), 0.08 - 0.72 * i / tiers
        cake.relief(BAR, cream, 0.0, y + 0.02, width, tall)
        cake.shape(BAR, shade(cream, 1.12), -0.2 * width, y - 0.06, width * 0.5, tall * 0.4)
    cake.ball(0.0, -0.78, 0.17, colour(rng, strength=(0.5, 0.95)))


def cup_cakes(sketch: Sketch, ground: Sketch, rng: Generator) -> None:
    """Draw one cup cake, or now and then two."""
    spread = (((0.0, 0.0, 0.98),), ((-0.5, 0.1, 0.7), (0.52, 0.12, 0.7)))
    for x, y, scale in spread[int(rng.random() < 0.2)]:
        cup_cake(sketch.part(x, y, scale * rng.uniform(0.9, 1.0), rng.uniform(-0.08, 0.08)), rng)


def donuts(sketch: Sketch, ground: Sketch, rng: Generator) -> None:
    """Draw one, two or three glazed rings with sprinkles."""
    tray, count = ground.part(angle=rng.uniform(-0.4, 0.4)), rng.choice((1, 1, 1, 2, 3, 3))
    reach, scale = ((0.0, 0.98), (0.52, 0.56), (0.58, 0.54))[count - 1]
    for x, y in polar(reach, np.arange(count) * 2 * pi / count):
        bun, hole = tray.part(x, y, scale * rng.uniform(0.96, 1.04)), rng.uniform(0.36, 0.42)
        dough, icing = baked(rng), colour(rng, strength=(0.05, 0.7), value=(0.35, 1.0))
        bun.shadow(ring(CIRCLE, hole))
        bun.shape(ring(CIRCLE, hole), shade(dough, 0.75))
        bun.shape(ring(CIRCLE, (hole + 0.04) / 0.94), dough, -0.02, -0.02, 0.94)
        glaze = wavy(rng, 0.035, int(rng.integers(6, 10)))
        bun.shape(ring(glaze, (hole + 0.08) / 0.86), shade(icing, 0.75), 0.01, 0.01, 0.86)
        bun.shape(ring(glaze, (hole + 0.1) / 0.81), icing, -0.01, -0.01, 0.81)
        bun.line(sector(3.4, 4.6)[1:] * 0.64, shade(icing, 1.25), 0.07)
        for turn in rng.uniform(0, pi, 3):
            rod = polar(0.055, turn + np.array((0.0, 0.7, pi, pi + 0.7)))
            spots = scatter(rng, int(rng.integers(6, 12)), 0.5, 0.74)
            bun.tiles(rod, colour(rng, value=(0.3, 1.0)), spots, 1.0)


def french_fries(sketch: Sketch, ground: Sketch, rng: Generator) -> None:
    """Draw a box of fries, plain or striped."""
    potato = colour(rng, (0.08, 0.15), (0.4, 0.8), (0.7, 1.0))
    box = colour(rng, strength=(0.0, 0.9), value=(0.35, 1.0))
    sketch.shadow(CIRCLE, 0.0, 0.93, 0.55, 0.1)
    sketch.shape([(-0.66, -0.3), (0.66, -0.3), (0.5, 0.5), (-0.5, 0.5)], shade(box, 0.6))
    for row in range(2):
        for x in rng.permutation(np.linspace(-0.52, 0.52, 10)):
            x_top, y_top = x * rng.uniform(1.15, 1.5), rng.uniform(-0.95, -0.5) + 0.3 * row
            fill = shade(potato, rng.uniform(0.85, 1.08))
            sketch.line([(x * 0.8, 0.5), (x_top, y_top)], shade(fill, 0.66), 0.125)
            sketch.line([(x * 0.8 - 0.02, 0.5), (x_top - 0.02, y_top)], fill, 0.085)
            sketch.shape(BOX, shade(fill, 1.25), x_top - 0.02, y_top, 0.042, 0.03)
    dip = [(x, 0.24 - 0.3 * x * x) for x in np.linspace(-0.68, 0.68, 13)]
    sketch.shape([*dip, (0.5, 0.97), (-0.5, 0.97)], box)
    stripes, mark = int(rng.integers(0, 4)), colour(rng, strength=(0.0, 0.9), value=(0.4, 1.0))
    for x in np.linspace(-0.4, 0.4, 2 * stripes + 1)[1::2]:
        sketch.shape([(x - 0.07, 0.3), (x + 0.07, 0.3), (x * 0.8, 0.97)], mark)


def hamburger(sketch: Sketch, ground: Sketch, rng: Generator) -> None:
    """Draw a bun with one or two patties, cheese, sauce and salad."""
    bun, wide, y = baked(rng), rng.uniform(0.86, 0.95), 0.68
    meat, leaf = colour(rng, (0.0, 0.08), value=(0.2, 0.45)), colour(rng, (0.15, 0.42))
    cheese = colour(rng, (0.05, 0.17), (0.3, 0.9), (0.8, 1.0))
    sketch.shadow(CIRCLE, 0.0, 0.84, wide, 0.14)
    sketch.relief(BAR, bun, 0.0, y, wide * 0.95, 0.2)
    for _ in range(rng.integers(1, 3)):
        sketch.relief(BAR, meat, 0.0, y - 0.22, wide, 0.15)
        y -= 0.27
        drips = [(0.8, 0.0), (0.3, 0.2), (0.0, 0.0), (-0.4, 0.2), (-0.7, 0.0), (-1.0, -0.09)]
        sketch.shape([(1.0, -0.09), *drips], cheese, 0.0, y, wide, 1.0)
    sketch.relief(BAR, colour(rng, (0.95, 1.05), (0.5, 0.9)), 0.0, y - 0.12, wide * 0.93, 0.08)
    edge = np.linspace(-1.04, 1.04, 25)
    ruffle = [(x * wide, y - 0.12 + 0.06 * (-1) ** i) for i, x in enumerate(edge)]
    sketch.shape([(wide, y - 0.26), (-wide, y - 0.26), *ruffle], leaf)
    sketch.line(ruffle, shade(leaf, 0.75), 0.03)
    cap, height = sketch.part(0.0, y - 0.2, wide), rng.uniform(0.52, 0.64)
    dome = [(cos(t), -(sin(t) ** 0.8)) for t in np.linspace(0, pi, 30)]
    cap.shape(dome, shade(bun, 0.75), 0.0, 0.0, 1.0, height)
    cap.shape(dome, bun, -0.02, -0.04, 0.95, height * 0.92)
    cap.shape(CIRCLE, shade(bun, 1.15), -0.25, -0.66 * height, 0.4, 0.1)
    x = np.linspace(-0.62, 0.62, 11)
    seeds = np.stack([x, -height * rng.uniform(0.3, 0.8, 11) * np.sqrt(1 - x * x)], axis=1)
    cap.tiles(DOT, shade(bun, 0.6), seeds + (0.0, 0.012), 0.046, 0.028)
    cap.tiles(DOT, pale(rng), seeds, 0.04, 0.025)


def ice_cream(sketch: Sketch, ground: Sketch, rng: Generator) -> None:
    """Draw a cone with one, two or three scoops."""
    cone, wafer = sketch.part(angle=rng.uniform(-0.25, 0.25)), baked(rng)
    sheath = np.array([(-0.44, 0.02), (0.44, 0.02), (0.0, 1.02)])
    cone.shadow(sheath)
    cone.shape(sheath, wafer)
    for t in np.linspace(0.12, 0.88, 6):
        ends = np.array([(-0.44 + 0.88 * t, 0.02), (0.44 * t, 1.02 - t)])
        cone.line(ends, shade(wafer, 0.65), 0.035)
        cone.line(ends * (-1, 1), shade(wafer, 0.65), 0.035)
    one, two = [(0.0, -0.3, 0.56)], [(0.0, -0.58, 0.4), (0.0, -0.1, 0.5)]
    three = [(0.0, -0.6, 0.37), (-0.32, -0.14, 0.38), (0.32, -0.14, 0.38)]
    for x, y, radius in (one, two, three)[rng.integers(3)]:
        cream = colour(rng, strength=(0.1, 0.5), value=(0.6, 1.0))
        scoop = cone.part(x, y, radius)
        skirt = wavy(rng, 0.05, int(rng.integers(9, 13))) * (1.06, 0.42) + (0.0, 0.6)
        scoop.shape(skirt, shade(cream, 0.8))
        scoop.relief(wavy(rng, 0.012, 11), cream)
        scoop.tiles(DOT, shade(cream, 0.86), scatter(rng, 8, 0.1, 0.8), 0.13, 0.06)


def pizza(sketch: Sketch, ground: Sketch, rng: Generator) -> None:
    """Draw eight slices; the first in place, pulled out or eaten."""
    pie = ground.part(angle=rng.uniform(0, 2 * pi))
    crust, cheese = baked(rng), colour(rng, (0.0, 0.17), (0.2, 0.75), (0.7, 1.0))
    sauce = colour(rng, (-0.02, 0.3), (0.5, 0.95), (0.4, 0.85))
    fills = [colour(rng, strength=(0.2, 0.9), value=(0.2, 0.9)) for _ in range(3)]
    forms = CIRCLE, ROUNDED * (0.9, 0.5), ring(CIRCLE, 0.5)
    away = rng.choice((0.0, 0.2, 9.0))  # the first slice: in place, pulled out, or eaten
    for i in range(int(away == 9.0), 8):
        start, middle, stop = (2 * i + np.arange(3)) * pi / 8
        piece = pie.part(*polar(0.0 if i else away, middle))
        outline = sector(start, stop)
        piece.shape(outline, shade(crust, 0.6))
        piece.shape(outline, crust, z=0.1)
        piece.shape(outline, sauce, rx=0.87, z=0.1)
        piece.shape(outline, cheese, rx=0.83, z=0.1)
        spots = polar((0.62, 0.66, 0.4), middle + (0.25, -0.2, 0.0) + rng.uniform(-0.06, 0.06, 3))
        for fill, form, (x, y) in zip(fills, forms, spots, strict=True):
            piece.relief(form, fill, x, y, rng.uniform(0.1, 0.14), z=0.1)
        piece.line([(0, 0), polar(1.0, start)], shade(cheese, 0.6), 0.022, 0.1)


def sushi(sketch: Sketch, ground: Sketch, rng: Generator) -> None:
    """Draw a tray of 2 x 2, 2 x 3 or 3 x 3 rolls, seen from above, into `ground`."""
    tray = ground.part(angle=rng.uniform(-0.5, 0.5))
    nori, rice = colour(rng, strength=(0.1, 0.6), value=(0.08, 0.25)), pale(rng)
    fillings = [colour(rng, strength=(0.5, 0.95)) for _ in range(3)]
    rows, columns = ((2, 2), (2, 3), (3, 3))[rng.integers(3)]
    radius = 0.84 / columns
    places = np.argwhere(np.ones((columns, rows))) - (columns / 2 - 0.5, rows / 2 - 0.5)
    rolls = [tray.part(x, y, radius) for x, y in places * 2.2 * radius]
    for roll in sorted(rolls, key=lambda roll: roll.origin[1]):
        roll.shadow(DOT)
        roll.prism(CIRCLE[::2], 0.0, 0.8, shade(nori, 1.2), nori)
        roll.relief(CIRCLE, rice, rx=0.88, z=0.8)
        roll.tiles(BOX, shade(rice, 0.82), scatter(rng, 12, 0.5, 0.72), 0.06, 0.035, 0.8)
        for fill, (x, y) in zip(fillings, polar(0.21, np.arange(3) * 2.1), strict=True):
            roll.relief(BAR, fill, x, y, 0.22, z=0.8)


def waffles(sketch: Sketch, ground: Sketch, rng: Generator) -> None:
    """Draw one or two waffles, round or square, with butter."""
    batter = baked(rng)
    for i in range(rng.integers(1, 3)):
        disc = ground.part(0.1 * i, -0.05 * i, 0.96, rng.uniform(-0.4, 0.4))
        outline, cells, z = (CIRCLE, ROUNDED)[rng.integers(2)], int(rng.integers(4, 6)), 0.17 * i
        disc.shadow(outline)
        disc.prism(outline, z, z + 0.15, shade(batter, 0.7), batter)
        half, centre = 0.82 / cells, np.linspace(-1 + 1 / cells, 1 - 1 / cells, cells) * 0.94
        pockets = np.stack(np.meshgrid(centre, centre), axis=-1).reshape(-1, 2)
        if outline is CIRCLE:
            pockets, half = pockets[np.sum(pockets**2, axis=1) < 0.75] * 0.9, half * 0.9
        disc.tiles(BOX, shade(batter, 0.5), pockets, half, z=z + 0.15)
        disc.tiles(BOX, shade(batter, 0.7), pockets + half * 0.2, half * 0.75, z=z + 0.15)
    butter = ground.part(*rng.uniform(-0.2, 0.2, 2), scale=0.2, angle=rng.uniform(0, 1))
    cream = colour(rng, strength=(0.1, 0.6), value=(0.8, 1.0))
    butter.prism(ROUNDED, 1.0, 1.8, shade(cream, 0.85), cream)
