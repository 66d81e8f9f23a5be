# SPDX-License-Identifier: Apache-2.0
"""Pictures without food, drawn from a seed: empty plates, utensils, faces, text, textures, gradients, noise.

They are drawings, which any feature tells from photographs more easily than a photograph of the same:
what is measured on them is an upper bound. Faces are schematic, and nobody's.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from math import cos, pi, sin

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIZE = 256  # pixels, both sides
Colour = tuple[int, int, int]

WORDS = (
    "menu starter soup salad grilled roast with and of the day sauce served house special today "
    "price table open closed please wait here total tax receipt thank you for your visit invoice "
    "number date order chapter which was not only because their about between under house street"
).split()


def draw(kind: str, number: int) -> np.ndarray:
    """Draw picture `number` of a kind of `KINDS`, uint8 (SIZE, SIZE, 3); the same every time."""
    rng = np.random.default_rng([zlib.crc32(kind.encode()), number])
    return np.asarray(KINDS[kind](rng).convert("RGB"))


def plates(rng: Generator) -> Image.Image:
    """Draw an empty plate from above, with cutlery beside it, on a table."""
    image, pen = _table(rng)
    x, y, radius = *rng.uniform(100, 156, 2), rng.uniform(55, 95)
    tilt, white = rng.uniform(0.6, 1.0), _near((235, 233, 228), rng, 18)
    for scale, tone, move in ((1.04, 0.45, 5), (1.0, 1.0, 0), (0.98, 0.93, 0), (0.7, 1.02, 0)):
        _ellipse(pen, x + move, y + move, radius * scale, radius * scale * tilt, _tone(white, tone))
    if rng.random() < 0.5:  # a coloured rim
        width, colour = int(rng.integers(1, 5)), _colour(rng)
        box = (x - radius, y - radius * tilt, x + radius, y + radius * tilt)
        pen.ellipse(box, outline=colour, width=width)
    for side, which in ((-1, fork), (1, knife), (1, spoon)):
        if rng.random() < 0.8:
            away = radius + rng.uniform(14, 40)
            which(pen, rng, x + side * away, y, rng.uniform(60, 110), rng.normal(0, 0.15))
    return _photographed(image, rng)


def utensils(rng: Generator) -> Image.Image:
    """Draw two to five utensils, a pan or a cup, on a table or a plain ground."""
    image, pen = _table(rng)
    tools = (fork, knife, spoon, pan, whisk, cup, bottle)
    for which in rng.choice(len(tools), rng.integers(2, 6)):
        place = rng.uniform(30, SIZE - 30, 2)
        tools[which](pen, rng, *place, rng.uniform(60, 170), rng.uniform(0, 2 * pi))
    return _photographed(image, rng)


def faces(rng: Generator) -> Image.Image:
    """Draw a schematic face with hair, in front of a ground."""
    image = _shaded(rng, _colour(rng), 50)
    pen = ImageDraw.Draw(image)
    skin = _tone((236, 196, 166), rng.uniform(0.35, 1.05))
    hair, x, y = _tone((90, 60, 40), rng.uniform(0.2, 2.2)), *rng.uniform(108, 148, 2)
    r = rng.uniform(48, 85)
    _ellipse(pen, x, y + 1.9 * r, 1.5 * r, 0.9 * r, _colour(rng))  # shoulders
    pen.rectangle((x - 0.35 * r, y + 0.6 * r, x + 0.35 * r, y + 1.4 * r), fill=_tone(skin, 0.85))
    _ellipse(pen, x, y - 0.25 * r, 0.95 * r, 1.1 * r, hair)
    _ellipse(pen, x, y, 0.8 * r, rng.uniform(0.95, 1.1) * r, skin)
    for side in (-1, 1):
        eye = x + side * 0.32 * r, y - 0.1 * r
        _ellipse(pen, *eye, 0.15 * r, 0.08 * r, (248, 248, 246))
        _ellipse(pen, *eye, 0.07 * r, 0.07 * r, _tone((70, 100, 110), rng.uniform(0.3, 1.4)))
        brow = y - rng.uniform(0.26, 0.36) * r
        pen.line((eye[0] - 0.18 * r, brow, eye[0] + 0.18 * r, brow), fill=hair, width=int(r / 14))
    nose = [(x, y), (x - 0.12 * r, y + 0.28 * r), (x + 0.1 * r, y + 0.3 * r)]
    pen.line(nose, fill=_tone(skin, 0.7), width=3, joint="curve")
    smile = rng.uniform(0.02, 0.25) * r
    box = (x - 0.3 * r, y + 0.5 * r - smile, x + 0.3 * r, y + 0.52 * r + smile)
    pen.arc(box, 10, 170, fill=(170, 70, 70), width=max(2, int(r / 12)))
    return _photographed(image, rng)


def text(rng: Generator) -> Image.Image:
    """Write lines of words, some with prices as on a menu, on paper or a board."""
    dark = rng.random() < 0.3
    paper = _near((35, 40, 38) if dark else (243, 240, 230), rng, 14)
    ink = _near((235, 235, 225) if dark else (30, 30, 40), rng, 20)
    image = Image.new("RGB", (SIZE, SIZE), paper)
    pen, size, is_menu = ImageDraw.Draw(image), int(rng.integers(9, 26)), rng.random() < 0.5
    font, y, left = ImageFont.load_default(size), float(rng.uniform(4, 24)), rng.uniform(4, 24)
    while y < SIZE - size:
        line = " ".join(rng.choice(WORDS, rng.integers(1, 4 if is_menu else 9)))
        pen.text((left, y), line.capitalize(), fill=ink, font=font)
        if is_menu:
            price = f"{rng.integers(3, 40)}.{rng.integers(0, 10)}0"
            pen.text((SIZE - 3.2 * size, y), price, fill=ink, font=font)
        y += size * rng.uniform(1.2, 1.9)
    image = image.rotate(rng.normal(0, 4), Image.Resampling.BICUBIC, fillcolor=paper)
    return _photographed(image, rng)


def textures(rng: Generator) -> Image.Image:
    """Draw stripes, checks, bricks, grain of wood or a weave, in two or three colours."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    angle, rate = rng.uniform(0, pi), rng.uniform(4, 30)
    u, v = x * cos(angle) + y * sin(angle), y * cos(angle) - x * sin(angle)
    cloud = _cloud(rng, int(rng.integers(3, 10)))
    wave = (
        lambda: np.sin(2 * pi * rate * u),
        lambda: np.sign(np.sin(2 * pi * rate * u) * np.sin(2 * pi * rate * v)),
        lambda: np.sin(2 * pi * (rate * u + rng.uniform(1, 4) * cloud)),
        lambda: np.maximum(np.sin(2 * pi * rate * u), np.sin(2 * pi * rate * v)) ** 3,
        lambda: _bricks(u, v, rate),
    )[rng.integers(5)]()
    share = ((wave + 1) / 2)[..., None]
    pixels = share * np.array(_colour(rng)) + (1 - share) * np.array(_colour(rng))
    return _photographed(_image(pixels + 30 * (cloud[..., None] - 0.5)), rng)


def gradients(rng: Generator) -> Image.Image:
    """Blend two to four colours across the picture, along a line, a circle or a cloud."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    angle = rng.uniform(0, 2 * pi)
    place = rng.uniform(0, 1, 2)
    share = (
        lambda: (x - 0.5) * cos(angle) + (y - 0.5) * sin(angle) + 0.5,
        lambda: np.hypot(x - place[0], y - place[1]),
        lambda: _cloud(rng, 3),
    )[rng.integers(3)]()
    stops = np.array([_colour(rng) for _ in range(rng.integers(2, 5))], float)
    at = np.linspace(share.min(), share.max(), len(stops))
    return _image(np.stack([np.interp(share, at, stops[:, c]) for c in range(3)], -1))


def noise(rng: Generator) -> Image.Image:
    """Draw noise of one grain size, in grey or in colours."""
    cells = int(rng.choice((16, 32, 64, 128, 256)))
    values = rng.integers(0, 256, (cells, cells, 1 if rng.random() < 0.3 else 3), dtype=np.uint8)
    small = Image.fromarray(np.broadcast_to(values, (cells, cells, 3)).copy())
    return small.resize((SIZE, SIZE), Image.Resampling.BICUBIC)


KINDS: dict[str, Callable[[Generator], Image.Image]] = {
    each.__name__: each for each in (plates, utensils, faces, text, textures, gradients, noise)
}


# ---- things ------------------------------------------------------------------------------------


def fork(pen: ImageDraw.ImageDraw, rng: Generator, *place: float) -> None:
    """Draw a fork at x, y of a length and angle, as all of these."""
    metal = _tone((190, 192, 196), rng.uniform(0.7, 1.15))
    _bar(pen, metal, place, (0.0, 1.0), 0.05)
    _bar(pen, metal, place, (0.62, 0.72), 0.16)
    for across in (-0.065, 0.0, 0.065):
        _bar(pen, metal, place, (0.7, 1.0), 0.03, across)


def knife(pen: ImageDraw.ImageDraw, rng: Generator, *place: float) -> None:
    """Draw a knife with a handle."""
    _bar(pen, _tone((200, 202, 206), rng.uniform(0.7, 1.1)), place, (0.4, 1.0), 0.1)
    _bar(pen, _colour(rng), place, (0.0, 0.42), 0.08)


def spoon(pen: ImageDraw.ImageDraw, rng: Generator, *place: float) -> None:
    """Draw a spoon of metal or wood."""
    base = (192, 194, 198) if rng.random() < 0.6 else (176, 130, 84)
    colour = _tone(base, rng.uniform(0.7, 1.1))
    _bar(pen, colour, place, (0.0, 0.8), 0.06)
    _disc(pen, colour, place, 0.85, 0.15)
    _disc(pen, _tone(colour, 0.85), place, 0.85, 0.11)


def pan(pen: ImageDraw.ImageDraw, rng: Generator, *place: float) -> None:
    """Draw an empty pan with its handle."""
    colour = _tone((70, 70, 74), rng.uniform(0.5, 2.2))
    _bar(pen, _tone(colour, 0.6), place, (0.0, 0.55), 0.09)
    _disc(pen, colour, place, 0.75, 0.33)
    _disc(pen, _tone(colour, 0.7), place, 0.75, 0.28)


def whisk(pen: ImageDraw.ImageDraw, rng: Generator, *place: float) -> None:
    """Draw a whisk: a handle and loops of wire."""
    _bar(pen, _colour(rng), place, (0.0, 0.45), 0.07)
    for wide in (0.05, 0.1, 0.15):
        loop = np.linspace(0, 2 * pi, 24)
        points = np.stack([0.72 - 0.28 * np.cos(loop), wide * np.sin(loop)], 1)
        pen.line([tuple(p) for p in _at(points, place)], fill=(150, 152, 158), width=2)


def cup(pen: ImageDraw.ImageDraw, rng: Generator, *place: float) -> None:
    """Draw an empty cup from above, with a saucer."""
    colour = _near((225, 225, 220), rng, 30)
    for radius, tone in ((0.4, 0.95), (0.38, 1.0), (0.22, 0.8), (0.19, 0.93)):
        _disc(pen, _tone(colour, tone), place, 0.5, radius)


def bottle(pen: ImageDraw.ImageDraw, rng: Generator, *place: float) -> None:
    """Draw a closed bottle with a label."""
    glass = _colour(rng)
    _bar(pen, glass, place, (0.0, 0.65), 0.28)
    _bar(pen, glass, place, (0.6, 0.95), 0.1)
    _bar(pen, _tone(glass, 0.5), place, (0.93, 1.0), 0.12)
    _bar(pen, _near((235, 230, 215), rng, 15), place, (0.15, 0.45), 0.28)


# ---- what they are drawn with ------------------------------------------------------------------


def _at(points: np.ndarray, place: tuple[float, ...]) -> np.ndarray:
    """Map points (n, 2), along and across a thing of length 1, to pixels."""
    x, y, length, angle = place
    turn = np.array([(sin(angle), cos(angle)), (-cos(angle), sin(angle))])
    return (np.asarray(points) - (0.5, 0.0)) @ turn.T * length + (x, y)


def _bar(
    pen: ImageDraw.ImageDraw,
    colour: Colour,
    place: tuple[float, ...],
    along: tuple[float, float],
    width: float,
    across: float = 0.0,
) -> None:
    low, high = across - width / 2, across + width / 2
    corners = [(along[0], low), (along[1], low), (along[1], high), (along[0], high)]
    pen.polygon([tuple(p) for p in _at(np.array(corners), place)], fill=colour)


def _disc(
    pen: ImageDraw.ImageDraw, colour: Colour, place: tuple[float, ...], along: float, radius: float
) -> None:
    ((x, y),) = _at(np.array([(along, 0.0)]), place)
    _ellipse(pen, x, y, radius * place[2], radius * place[2], colour)


def _ellipse(
    pen: ImageDraw.ImageDraw, x: float, y: float, rx: float, ry: float, fill: Colour
) -> None:
    pen.ellipse((x - rx, y - ry, x + rx, y + ry), fill=fill)


def _table(rng: Generator) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    base = _near(((150, 110, 75), (200, 200, 198), (90, 95, 100))[rng.integers(3)], rng, 35)
    image = _shaded(rng, base, 35)
    return image, ImageDraw.Draw(image)


def _shaded(rng: Generator, base: Colour, depth: float) -> Image.Image:
    return _image(np.array(base) + depth * (_cloud(rng, int(rng.integers(2, 8)))[..., None] - 0.5))


def _cloud(rng: Generator, cells: int) -> np.ndarray:
    """Make smooth values (SIZE, SIZE) from 0 to 1 with about so many hills a side."""
    small = Image.fromarray(rng.integers(0, 256, (cells + 1, cells + 1), dtype=np.uint8))
    return np.asarray(small.resize((SIZE, SIZE), Image.Resampling.BICUBIC)) / 255


def _bricks(u: np.ndarray, v: np.ndarray, rate: float) -> np.ndarray:
    row = np.floor(v * rate)
    joint = np.minimum((v * rate) % 1, ((u * rate / 2) + 0.5 * (row % 2)) % 1)
    return np.where(joint < 0.1, -1.0, 1.0)


def _photographed(image: Image.Image, rng: Generator) -> Image.Image:
    """Blur a little, light from one side and add grain, as a camera does."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE - 0.5
    angle = rng.uniform(0, 2 * pi)
    light = 1 + rng.uniform(0, 0.5) * (x * cos(angle) + y * sin(angle))
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.5))), float)
    return _image(pixels * light[..., None] + rng.normal(0, rng.uniform(0, 8), pixels.shape))


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _colour(rng: Generator) -> Colour:
    return tuple(int(c) for c in rng.integers(20, 236, 3))


def _near(base: Colour, rng: Generator, spread: float) -> Colour:
    return tuple(int(np.clip(c + rng.normal(0, spread), 0, 255)) for c in base)


def _tone(base: Colour, factor: float) -> Colour:
    return tuple(int(min(255, c * factor)) for c in base)
