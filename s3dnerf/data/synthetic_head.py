"""A head whose surface is known everywhere, and how it opens its mouth and eyes.

The surface is star-shaped: every direction, given by azimuth and elevation seen from the origin of the head frame, has one
distance, kept in a table. Faces move by a map of directions, exactly inverted, so that landmarks (carried forward) and
pixels (carried back) tell the same story.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from s3dnerf.face import EYE_RINGS, INNER_LIPS, LIPS, metric_face

ROWS, COLUMNS = 181, 361
"""one entry of the table for every degree; the last column repeats the first"""
SKULL_CENTRE, SKULL_RADII = torch.tensor([0.0, -0.26, 0.06]), torch.tensor([0.86, 1.12, 0.8])
HAIR_THICKNESS = 0.06
RADIANS_PER_OPENING = 1.37
"""elevation between the inner lips for each head unit of opening"""
ROUNDED = 0.33
"""share of its width that a fully rounded mouth loses"""


@dataclass(frozen=True)
class Proportions:
    """How the shape of a head differs from the metric face."""

    jaw: float = 1.0
    """factor on the width of the lower face"""
    chin: float = 1.0
    """factor on the length of the chin"""
    nose: float = 1.0
    """factor on the height of the nose"""
    mouth: float = 1.0
    """factor on the width of the mouth"""
    eyes: float = 1.0
    """factor on the opening of the eyes"""
    hairline: float = -0.88
    """elevation of the hair's edge on the brow, radians"""
    sideburn: float = 0.35
    """elevation that the hair reaches at the sides, radians"""


@dataclass(frozen=True)
class Expression:
    """What a face does in one frame."""

    opening: float = 0.0
    """height of the mouth's inside, head units"""
    rounding: float = 0.0
    """0 spread to 1 round"""
    blink: float = 0.0
    """0 open to 1 shut"""


@dataclass(frozen=True)
class Slit:
    """A line of skin that parts: above it moves up, below it moves down, in between the inside shows. All in radians."""

    centre: float
    half: float
    line: tuple[float, float, float]
    """elevation of the closed slit, a quadratic of the azimuth from the centre, constant first"""
    shares: tuple[float, float]
    """of the opening, upwards and downwards"""
    reaches: tuple[float, float]
    """how far above and below the slit the skin follows"""
    jaw: float = 0.0
    """how much, of the downward share, what lies farther below follows"""

    def height(self, azimuth: Tensor) -> Tensor:
        """Elevation of the closed slit."""
        u = azimuth - self.centre
        return self.line[0] + self.line[1] * u + self.line[2] * u ** 2

    def arch(self, azimuth: Tensor) -> Tensor:
        """Share of the opening at an azimuth: 1 in the middle, 0 at and beyond the corners."""
        return (1 - ((azimuth - self.centre) / self.half) ** 2).clamp_min(0)

    def moved(self, azimuth: Tensor, distance: Tensor, side: Tensor, amount: float) -> Tensor:
        """Distance from the slit, on its side (-1 above, +1 below), of skin that lay at `distance` when it was shut."""
        arch = self.arch(azimuth)
        above = arch * fall(distance / self.reaches[0]) * self.shares[0]
        below = arch * fall(distance / self.reaches[1]) * self.shares[1]
        if self.jaw:
            wide = torch.exp(-((azimuth - self.centre) / 0.75) ** 2)
            chin = rise(distance / self.reaches[1]) * (1 - rise((distance - 0.5) / 0.55))
            below = below + self.jaw * self.shares[1] * wide * chin
        return distance + amount * torch.where(side < 0, above, below)

    def open(self, azimuth: Tensor, elevation: Tensor, side: Tensor, amount: float) -> Tensor:
        """Elevation of skin that lay at `elevation` while the slit was shut; `side` decides on the slit itself."""
        line = self.height(azimuth)
        return line + side * self.moved(azimuth, (side * (elevation - line)).clamp_min(0), side, amount)

    def shut(self, azimuth: Tensor, elevation: Tensor, amount: float) -> tuple[Tensor, Tensor]:
        """Where skin seen at `elevation` lay while the slit was shut, and what is inside [bool]; inverse of `open`."""
        if amount == 0:
            return elevation, torch.zeros_like(elevation, dtype=torch.bool)
        line = self.height(azimuth)
        side = torch.where(elevation < line, -1.0, 1.0)
        target = side * (elevation - line)
        edge = amount * self.arch(azimuth) * torch.where(side < 0, *self.shares)
        low, high = torch.zeros_like(target), target
        for _ in range(16):
            middle = (low + high) / 2
            too_far = self.moved(azimuth, middle, side, amount) > target
            low, high = torch.where(too_far, low, middle), torch.where(too_far, middle, high)
        inside = target < edge
        return line + side * torch.where(inside, 0, (low + high) / 2), inside


class SyntheticHead:
    """A head of given proportions.

    Directions are [*, 2]: azimuth (0 towards the viewer of a frontal face, positive to the viewer's right) and elevation
    (positive downwards), radians.
    """

    def __init__(self, proportions: Proportions = Proportions()):
        self.proportions = proportions
        points = torch.from_numpy(metric_face()) * 1.0
        shape_face(points, proportions)
        seen = to_directions(points)
        self.mouth = fit_mouth(seen)
        self.eyes = tuple(fit_eye(seen, ring) for ring in EYE_RINGS)
        self.sides = {slit: torch.where(seen[:, 1] < slit.height(seen[:, 0]), -1.0, 1.0) for slit in (self.mouth, *self.eyes)}
        self.rest = self._shut(seen)
        self.table = radius_table(self.rest[:468], points[:468].norm(dim=1))
        grid = table_directions()
        self.table = self.table + HAIR_THICKNESS * self.hair(grid)
        self.farthest = self.table.max().item()

    def _shut(self, seen: Tensor) -> Tensor:
        """The metric landmarks with mouth and eyes shut."""
        rest = seen.clone()
        metric = (seen[14, 1] - seen[13, 1]).item()
        eyes = [(eye, ring, 0.51 * eye.half) for eye, ring in zip(self.eyes, EYE_RINGS)]
        for slit, ring, amount in [(self.mouth, INNER_LIPS, metric), *eyes]:
            rest[:468, 1] = slit.shut(rest[:468, 0], rest[:468, 1], amount)[0]
            ring = list(ring)
            rest[ring, 1] = slit.height(rest[ring, 0])
        return rest

    def hair(self, directions: Tensor) -> Tensor:
        """[*] in [0, 1] how much of a resting direction is hair."""
        azimuth, elevation = directions.unbind(-1)
        p = self.proportions
        parting = 0.05 * torch.cos(5 * azimuth + 1) + 0.03 * torch.cos(11 * azimuth)
        edge = p.hairline + parting + (p.sideburn - p.hairline) * rise((azimuth.abs() - 0.85) / 0.55)
        return rise((edge - elevation) / 0.05 + 0.5)

    def amounts(self, expression: Expression) -> tuple[tuple[Slit, float], ...]:
        """Each slit and the radians that it is open by."""
        eyes = 0.6 * self.proportions.eyes * (1 - expression.blink)
        return ((self.mouth, expression.opening * RADIANS_PER_OPENING), *((eye, eyes * eye.half) for eye in self.eyes))

    def forward(self, expression: Expression) -> Tensor:
        """[478, 2] directions of the landmarks. The irises do not move."""
        azimuth, elevation = self.rest[:468].unbind(-1)
        for slit, amount in self.amounts(expression):
            elevation = slit.open(azimuth, elevation, self.sides[slit][:468], amount)
        azimuth = azimuth * (1 - self.squeeze(azimuth, elevation, expression))
        return torch.cat([torch.stack([azimuth, elevation], -1), self.rest[468:]])

    def backward(self, directions: Tensor, expression: Expression) -> tuple[Tensor, Tensor]:
        """Resting directions [N, 2] of what is seen at `directions` [N, 2], and [N]: 0 skin, 1 mouth, 2 and 3 the eyes."""
        rest, region = directions.clone(), torch.zeros(len(directions), dtype=torch.long)
        face = ((directions[:, 0].abs() < 2.4) & (directions[:, 1] > -1.1)).nonzero()[:, 0]
        azimuth, elevation = directions[face].unbind(-1)
        seen = azimuth
        if expression.rounding > 0:
            for _ in range(12):
                azimuth = seen / (1 - self.squeeze(azimuth, elevation, expression))
        for number, (slit, amount) in enumerate(self.amounts(expression), 1):
            near = ((azimuth - slit.centre).abs() < (2.4 if slit.jaw else slit.half)) \
                & (elevation > slit.line[0] - 0.5) & (elevation < slit.line[0] + (1.2 if slit.jaw else 0.4))
            elevation = elevation.clone()
            elevation[near], inside = slit.shut(azimuth[near], elevation[near], amount)
            region[face[near.nonzero()[:, 0][inside]]] = number
        rest[face] = torch.stack([azimuth, elevation], -1)
        return rest, region

    def squeeze(self, azimuth: Tensor, elevation: Tensor, expression: Expression) -> Tensor:
        """Share of its azimuth that skin seen at an elevation loses when the lips are rounded."""
        window = torch.exp(-(azimuth / 0.7) ** 2 - ((elevation - self.mouth.line[0]) / 0.35) ** 2)
        return ROUNDED * expression.rounding * window

    def surface(self, expression: Expression) -> Tensor:
        """[ROWS, COLUMNS] distance of the surface from the origin, for `look_up`. Rounded lips stick out a little."""
        grid = table_directions()
        rest, _ = self.backward(grid.flatten(0, 1), expression)
        away = (grid - torch.tensor([0.0, self.mouth.line[0]])).square().sum(-1)
        pout = 0.05 * expression.rounding * torch.exp(-away / 0.06)
        return look_up(self.table, rest).view(ROWS, COLUMNS) + pout

    def landmarks(self, expression: Expression, table: Tensor) -> Tensor:
        """[478, 3] landmarks in the head frame, on `table` = `surface(expression)`."""
        directions = self.forward(expression)
        return to_points(directions, look_up(table, directions))


def rise(x: Tensor) -> Tensor:
    """0 up to 0, 1 from 1 on, smooth in between."""
    x = x.clamp(0, 1)
    return x * x * (3 - 2 * x)


def fall(x: Tensor) -> Tensor:
    """1 at 0, 0 from 1 on, smooth in between."""
    return 1 - rise(x)


def to_directions(points: Tensor) -> Tensor:
    """[*, 2] azimuth and elevation of points [*, 3]."""
    x, y, z = points.unbind(-1)
    return torch.stack([torch.atan2(x, -z), torch.atan2(y, torch.hypot(x, z))], -1)


def to_points(directions: Tensor, distance: Tensor) -> Tensor:
    """[*, 3] points at distances [*] in directions [*, 2]; inverse of `to_directions`."""
    azimuth, elevation = directions.unbind(-1)
    level = distance * elevation.cos()
    return torch.stack([level * azimuth.sin(), distance * elevation.sin(), -level * azimuth.cos()], -1)


def table_directions() -> Tensor:
    """[ROWS, COLUMNS, 2] the direction of every entry of a table."""
    elevation, azimuth = torch.meshgrid(torch.linspace(-torch.pi / 2, torch.pi / 2, ROWS),
                                        torch.linspace(-torch.pi, torch.pi, COLUMNS), indexing="ij")
    return torch.stack([azimuth, elevation], -1)


def look_up(table: Tensor, directions: Tensor) -> Tensor:
    """[N] or [N, C] values of a table [ROWS, COLUMNS] or [C, ROWS, COLUMNS] at directions [N, 2], linear in between."""
    places = directions / directions.new_tensor([torch.pi, torch.pi / 2])
    layers = table if table.dim() == 3 else table[None]
    values = F.grid_sample(layers[None], places[None, :, None], align_corners=True, padding_mode="border")[0, :, :, 0]
    return values.T if table.dim() == 3 else values[0]


def shape_face(points: Tensor, proportions: Proportions) -> None:
    """Gives metric landmarks [478, 3] a person's proportions, in place. The outer eye corners stay."""
    x, y, z = points.unbind(-1)
    near_mouth = torch.exp(-((y - 0.42) / 0.2) ** 2 - (x / 0.6) ** 2)
    near_nose = torch.exp(-(x / 0.2) ** 2 - ((y + 0.05) / 0.28) ** 2)
    z -= 0.25 * (proportions.nose - 1) * near_nose
    x *= (1 + (proportions.mouth - 1) * near_mouth) * (1 + (proportions.jaw - 1) * rise(y / 0.7))
    y += (proportions.chin - 1) * rise((y - 0.55) / 0.4)


def fit_mouth(seen: Tensor) -> Slit:
    """The slit between the lips of landmarks seen in directions [478, 2]."""
    right, left = seen[INNER_LIPS[10]], seen[INNER_LIPS[0]]
    half, middle = (right[0] - left[0]).item() / 2, (seen[13, 1] + seen[14, 1]).item() / 2
    corner = (right[1] + left[1]).item() / 2
    return Slit(0.0, half, (middle, 0.0, (corner - middle) / half ** 2), (0.2, 0.8), (0.3, 0.3), jaw=0.8)


def fit_eye(seen: Tensor, ring: tuple[int, ...]) -> Slit:
    """The slit between the lids of an eye: a curve through its corners that sags, as shut lids do."""
    first, last = seen[ring[0]], seen[ring[8]]
    half = (last[0] - first[0]).item() / 2
    level, tilt = (first[1] + last[1]).item() / 2, (last[1] - first[1]).item() / (2 * half)
    sag = 0.18 * half
    return Slit((first[0] + last[0]).item() / 2, half, (level + sag, tilt, -sag / half ** 2), (0.8, 0.2), (0.28, 0.2))


def radius_table(directions: Tensor, distances: Tensor) -> Tensor:
    """[ROWS, COLUMNS] a smooth surface through points at distances [N] in directions [N, 2]; a skull where there are none."""
    unit = to_points(directions, torch.ones_like(distances))
    number = torch.arange(400) + 0.5
    y, turn = 1 - 2 * number / 400, number * torch.pi * (1 + 5 ** 0.5)
    level = (1 - y * y).sqrt()
    skull = torch.stack([level * turn.cos(), y, level * turn.sin()], -1)
    skull = skull[torch.cdist(skull, unit).amin(1) > 0.3]
    places, values = torch.cat([unit, skull]).double(), torch.cat([distances, skull_distance(skull)]).double()
    # Cubic splines over the sphere; the small diagonal lets the two lips, which meet in one line, share a distance.
    ones = torch.cat([torch.ones(len(places), 1, dtype=torch.float64), places], 1)
    system = torch.cat([torch.cat([torch.cdist(places, places) ** 3 + 2e-4 * torch.eye(len(places)), ones], 1),
                        torch.cat([ones.T, ones.new_zeros(4, 4)], 1)])
    weights = torch.linalg.solve(system, torch.cat([values, values.new_zeros(4)])).float()
    grid = table_directions()[::2, ::2]
    spots = to_points(grid, torch.ones(grid.shape[:2])).flatten(0, 1)
    table = torch.cdist(spots, places.float()).pow_(3) @ weights[:-4] + weights[-4] + spots @ weights[-3:]
    table = table.view(1, 1, *grid.shape[:2])
    return F.interpolate(table, size=(ROWS, COLUMNS), mode="bicubic", align_corners=True)[0, 0]


def skull_distance(unit: Tensor) -> Tensor:
    """[N] where rays from the origin along [N, 3] leave the skull's ellipsoid."""
    direction, start = unit / SKULL_RADII, -SKULL_CENTRE / SKULL_RADII
    a, b, c = direction.square().sum(-1), direction @ start, start @ start - 1
    return (-b + (b * b - a * c).sqrt()) / a


def lip_outline(head: SyntheticHead) -> tuple[np.ndarray, np.ndarray]:
    """Directions [11, 2] of the upper and of the lower outer edge of the resting lips, by rising azimuth."""
    ring = head.rest[list(LIPS[:20])].numpy()
    lower, upper = ring[:11], np.concatenate([ring[10:], ring[:1]])[::-1]
    return upper, lower


