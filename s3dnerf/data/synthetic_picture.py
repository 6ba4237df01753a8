"""Pictures of synthetic heads: rays cast on the surface, and paint."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from s3dnerf.data.synthetic_head import (RADIANS_PER_OPENING, Expression, SyntheticHead, lip_outline, look_up, rise,
                                         table_directions, to_directions, to_points)
from s3dnerf.geometry import cast_rays, pixel_directions, pixel_grid, rigid_inverse
from s3dnerf.types import Cameras

LIGHT = torch.tensor([-0.38, -0.5, -0.78])
"""towards the light: it moves with the head, so that a spot of skin keeps its colour when the head turns"""
SHOULDERS, SHOULDER_RADII = torch.tensor([0.0, 2.25, 0.55]), torch.tensor([1.7, 0.95, 0.8])
NECK_RADIUS = 0.43
BROWS = ((70, 63, 105, 66, 107, 46, 53, 52, 65, 55), (300, 293, 334, 296, 336, 276, 283, 282, 295, 285))
CHEEKS, NOSTRILS = (50, 280), (79, 309)
MARCH_STEPS = 40
SHORTEST_STEP = 0.008
"""head units, less than a pixel: rays that graze the surface must get past"""


@dataclass(frozen=True)
class Paint:
    """Colours of a person and of the wall behind, RGB in [0, 1]."""

    skin: Tensor
    hair: Tensor
    lips: Tensor
    iris: Tensor
    shirt: Tensor
    wall: Tensor
    """[4, 3] of the wall's corners"""
    spots: Tensor
    """[K, 3] spots on the wall: x, y and radius in [0, 1] of the picture"""
    spot_colours: Tensor
    """[K, 3]"""
    freckles: Tensor
    """[N, 2] directions on the resting face"""
    strands: float
    """how many strands the hair has around the head"""


@dataclass(frozen=True)
class Picture:
    """What a camera sees of a synthetic head."""

    image: Tensor
    """[S, S, 3] in [0, 1]"""
    head: Tensor
    """[S, S] in [0, 1], share of the pixel"""
    torso: Tensor
    """[S, S] in [0, 1]"""
    mouth: Tensor
    """[S, S] in [0, 1]"""


def take_picture(head: SyntheticHead, paint: Paint, expression: Expression, table: Tensor, wall: Tensor, camera: Cameras,
                 body: Tensor, oversampling: int = 2) -> Picture:
    """The picture of a head whose surface is `table` = `head.surface(expression)`, seen by a camera [].

    It is as large as `wall` [S, S, 3], the background. The shoulders stay where they are in front of the camera: `body`
    [4, 4] is the head-to-camera pose that they were made for. The neck joins them to the moving head.
    """
    size = len(wall)
    fine = size * oversampling
    camera = camera.resized(oversampling)
    rays = cast_rays(camera, fine, fine)
    hit, distance, points = meet(table, head.farthest, rays.origins, rays.directions)
    body_distance, image = see_body(paint, camera, fine, body)
    front = distance < body_distance[hit]
    hit, points = hit[front], points[front]
    colour, region = paint_head(head, paint, expression, points, rays.directions[hit], surface_normals(table))
    image[hit] = colour
    shown, torso, mouth = torch.zeros(fine * fine), torch.isfinite(body_distance).float(), torch.zeros(fine * fine)
    shown[hit], torso[hit], mouth[hit] = 1.0, 0.0, (region == 1).float()
    image = image * (shown + torso)[:, None]
    merge = lambda x: x.view(size, oversampling, size, oversampling, -1).mean((1, 3)).squeeze(-1)
    shown, torso = merge(shown), merge(torso)
    return Picture(merge(image) + wall * (1 - shown - torso)[..., None], shown, torso, merge(mouth))


def meet(table: Tensor, farthest: float, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rays that meet the surface: their numbers [N], distances [N] and points [N, 3].

    From a sphere around the head each ray steps as far as it is outside; once it has been inside, the way between is halved.
    """
    b = (origins * directions).sum(-1)
    square = b ** 2 - origins.square().sum(-1) + farthest ** 2
    alive = (square > 0).nonzero()[:, 0]
    outside = -b[alive] - square[alive].sqrt()
    inside, leave = torch.full_like(outside, torch.inf), outside + 2 * square[alive].sqrt()
    travelled, met = outside.clone(), torch.zeros_like(outside, dtype=torch.bool)
    going = torch.arange(len(alive))
    for _ in range(MARCH_STEPS):
        rays, place = alive[going], travelled[going]
        points = origins[rays] + directions[rays] * place[:, None]
        gap = points.norm(dim=-1) - look_up(table, to_directions(points))
        outside[going] = torch.where(gap > 0, place, outside[going])
        inside[going] = torch.where(gap > 0, inside[going], place)
        met[going] = gap.abs() < 5e-4
        step = torch.where(gap > 0, place + (0.75 * gap).clamp_min(SHORTEST_STEP), -torch.inf)
        step = torch.where((step > outside[going]) & (step < inside[going]), step, (outside[going] + inside[going]) / 2)
        travelled[going] = torch.where(met[going], place, step)
        going = going[~met[going] & (step < leave[going])]
        if not len(going):
            break
    met |= torch.isfinite(inside) & (travelled < leave)
    rays, travelled = alive[met], travelled[met]
    return rays, travelled, origins[rays] + directions[rays] * travelled[:, None]


def surface_normals(table: Tensor) -> Tensor:
    """[3, ROWS, COLUMNS] unit normals of a surface."""
    points = to_points(table_directions(), table)
    across = torch.cat([points[:, 1:2] - points[:, -2:-1], points[:, 2:] - points[:, :-2], points[:, 1:2] - points[:, -2:-1]], 1)
    down = torch.cat([points[1:2] - points[:1], points[2:] - points[:-2], points[-1:] - points[-2:-1]])
    normal = torch.linalg.cross(down, across)
    outward = torch.where((normal * points).sum(-1, keepdim=True) < 0, -normal, normal)
    return torch.nn.functional.normalize(outward, dim=-1).permute(2, 0, 1)


def see_body(paint: Paint, camera: Cameras, size: int, body: Tensor) -> tuple[Tensor, Tensor]:
    """Distances [R] (infinite where there is none) and colours [R, 3] of shoulders and neck."""
    local = pixel_directions(pixel_grid(size, size, body), camera)
    ray = local / local.norm(dim=-1, keepdim=True)
    pose = rigid_inverse(camera.camera_to_world)
    place = lambda matrix, point: matrix[:3, :3] @ body.new_tensor(point) + matrix[:3, 3]
    start = -(body[:3, :3] @ SHOULDERS + body[:3, 3]) / SHOULDER_RADII
    scaled = ray / SHOULDER_RADII
    a, b = scaled.square().sum(-1), scaled @ start
    square = b ** 2 - a * (start @ start - 1)
    shoulders = torch.where(square > 0, (-b - square.clamp_min(0).sqrt()) / a, torch.inf)
    normal = (start + scaled * torch.where(square > 0, shoulders, 0)[:, None]) / SHOULDER_RADII
    shirt = shade(paint.shirt, normal, 0.5)
    top, foot = place(pose, (0.0, 0.3, 0.25)), place(body, (0.0, 1.9, 0.5))
    neck, normal, along = meet_tube(ray, top, foot, NECK_RADIUS)
    skin = shade(paint.skin, normal, 0.35) * (0.55 + 0.45 * rise((along - 0.25) / 0.45))[:, None]
    return torch.minimum(neck, shoulders), torch.where((neck < shoulders)[:, None], skin, shirt)


def meet_tube(ray: Tensor, top: Tensor, foot: Tensor, radius: float) -> tuple[Tensor, Tensor, Tensor]:
    """Where rays [R, 3] from the camera meet a tube: distances [R], outward normals [R, 3], place along it [R] in [0, 1]."""
    axis = foot - top
    length = axis.norm()
    axis = axis / length
    flat = lambda v: v - (v @ axis)[..., None] * axis
    across, start = flat(ray), flat(-top[None])[0]
    a, b = across.square().sum(-1), across @ start
    square = b ** 2 - a * (start @ start - radius ** 2)
    distance = (-b - square.clamp_min(0).sqrt()) / a
    along = ((ray * distance[:, None] - top) @ axis) / length
    met = (square > 0) & (along > 0) & (along < 1)
    return torch.where(met, distance, torch.inf), start + across * distance[:, None], along


def paint_wall(paint: Paint, size: int) -> Tensor:
    """[size, size, 3] the background."""
    x, y = (pixel_grid(size, size, paint.wall) / size).split(1, -1)
    top, bottom = paint.wall[0] * (1 - x) + paint.wall[1] * x, paint.wall[2] * (1 - x) + paint.wall[3] * x
    colour = top * (1 - y) + bottom * y
    for (left, upper, radius), tint in zip(paint.spots.tolist(), paint.spot_colours):
        share = 0.6 * (1 - rise((torch.hypot(x - left, y - upper) - radius) / 0.02))
        colour = colour + (tint - colour) * share
    return colour.view(size, size, 3)


def shade(colour: Tensor, normal: Tensor, ambient: float) -> Tensor:
    """Colours [3] or [N, 3] lit on a surface with normals [N, 3] of any length."""
    facing = torch.nn.functional.normalize(normal, dim=-1) @ (LIGHT / LIGHT.norm())
    return colour * (ambient + (1 - ambient) * (0.5 + 0.5 * facing).clamp(0, 1) ** 1.5)[:, None]


def paint_head(head: SyntheticHead, paint: Paint, expression: Expression, points: Tensor, ray: Tensor,
               normals: Tensor) -> tuple[Tensor, Tensor]:
    """Colours [N, 3] of points [N, 3] of the surface, seen along `ray` [N, 3], and their regions [N] as in `backward`."""
    seen = to_directions(points)
    rest, region = head.backward(seen, expression)
    colour = paint_skin(head, paint, rest)
    colour = mix(colour, paint.lips, lip_share(head, rest))
    for slit, amount in head.amounts(expression)[1:]:
        lashes = (rest[:, 1] - slit.height(rest[:, 0])).abs() / 0.018
        colour = mix(colour, paint.skin * 0.25, (1 - rise(lashes - 0.4)) * slit.arch(rest[:, 0]).clamp(0, 1) ** 0.5)
    crease = ((rest[:, 1] - head.mouth.height(rest[:, 0])).abs() / 0.016 + 0.2) / head.mouth.arch(rest[:, 0]).clamp_min(0.01)
    colour = mix(colour, paint.lips * 0.4, 1 - rise(crease - 0.2))
    normal = look_up(normals, seen)
    glossy = rise((normal @ torch.tensor([-0.3, -0.45, -0.84]) - 0.93) / 0.07) * (1 - head.hair(rest))
    colour = shade(colour, normal, 0.3) + 0.06 * glossy[:, None]
    paint_mouth(head, expression, colour, region == 1, points, ray)
    for number, (slit, amount), pupil in zip((2, 3), head.amounts(expression)[1:], (468, 473)):
        paint_eye(paint, colour, region == number, seen, head.rest[pupil], slit.height(seen[:, 0]) - 0.8 * amount * slit.arch(seen[:, 0]))
    return colour.clamp(0, 1), region


def mix(colour: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """`colour` where share [N] is 0, `other` where it is 1."""
    return colour + (other - colour) * share[:, None]


def spot(rest: Tensor, centre: Tensor, radius: float) -> Tensor:
    """[N] a soft spot on the resting face: 1 at a direction [2], a third at `radius` radians."""
    away = (rest - centre) * torch.stack([centre[1].cos(), torch.ones(())])
    return torch.exp(-away.square().sum(-1) / radius ** 2)


def paint_skin(head: SyntheticHead, paint: Paint, rest: Tensor) -> Tensor:
    """Colours [N, 3] of skin, cheeks, nostrils, freckles, brows and hair at resting directions [N, 2]."""
    azimuth, elevation = rest.unbind(-1)
    colour = paint.skin.expand(len(rest), 3)
    blush = sum(spot(rest, head.rest[i], 0.24) for i in CHEEKS)
    colour = mix(colour, paint.skin * torch.tensor([1.03, 0.8, 0.78]), 0.7 * blush.clamp(0, 1))
    for freckle in paint.freckles:
        colour = mix(colour, paint.skin * 0.6, 0.8 * spot(rest, freckle, 0.018))
    for nostril in NOSTRILS:
        colour = mix(colour, paint.skin * 0.22, (1.6 * spot(rest, head.rest[nostril], 0.045)).clamp(0, 1))
    strand = 0.5 + 0.5 * torch.sin(azimuth * paint.strands + 4 * torch.sin(3 * elevation) + 3 * torch.sin(7 * azimuth))
    hair = paint.hair * (0.88 + 0.24 * strand)[:, None]
    for brow in BROWS:
        share = brow_share(head.rest[list(brow)], rest)
        colour = colour + (0.8 * hair - colour) * share[:, None]
    return colour + (hair - colour) * head.hair(rest)[:, None]


def brow_share(ring: Tensor, rest: Tensor) -> Tensor:
    """[N] in [0, 1] how much of a resting direction is the brow around landmarks [10, 2]."""
    centre = ring[:, 0].mean()
    powers = lambda azimuth: torch.stack([torch.ones_like(azimuth), azimuth - centre, (azimuth - centre) ** 2], -1)
    curve = torch.linalg.lstsq(powers(ring[:, 0]), ring[:, 1:]).solution[:, 0]
    half = (ring[:, 0].amax() - ring[:, 0].amin()) / 2
    place = ((rest[:, 0] - centre) / half).abs()
    thick = 0.042 * (1 - 0.5 * place ** 2).clamp_min(0.05)
    away = (rest[:, 1] - powers(rest[:, 0]) @ curve).abs()
    return (1 - rise((away / thick - 0.7) / 0.5)) * (1 - rise((place - 0.9) / 0.15))


def lip_share(head: SyntheticHead, rest: Tensor) -> Tensor:
    """[N] in [0, 1] how much of a resting direction is lip: between the outer rings of landmarks."""
    upper, lower = lip_outline(head)
    azimuth, elevation = rest.numpy().T
    between = lambda edge: np.interp(azimuth, *edge.T)
    depth = np.minimum(elevation - between(upper), between(lower) - elevation)
    reach = np.minimum(azimuth - upper[0, 0], upper[-1, 0] - azimuth)
    return rise(torch.from_numpy(np.minimum(depth, reach)).float() / 0.02 + 0.3)


def paint_mouth(head: SyntheticHead, expression: Expression, colour: Tensor, inside: Tensor, points: Tensor,
                ray: Tensor) -> None:
    """Teeth, tongue and dark, a little behind the lips, in place."""
    azimuth, elevation = to_directions(points[inside] + 0.05 * ray[inside]).unbind(-1)
    line = head.mouth.height(azimuth)
    deep = torch.tensor([0.16, 0.04, 0.05]).expand(len(line), 3)
    width = torch.exp(-(azimuth / 0.2) ** 2)
    tongue = rise((elevation - line - 0.62 * expression.opening * RADIANS_PER_OPENING - 0.06 * (1 - width)) / 0.06)
    deep = mix(deep, torch.tensor([0.62, 0.24, 0.25]), 0.8 * tongue * width)
    teeth = 1 - rise((elevation - line - 0.035) / 0.02)
    gaps = 0.86 + 0.14 * rise((torch.sin(azimuth * 38).abs()) / 0.25)
    colour[inside] = mix(deep, torch.tensor([0.9, 0.88, 0.83]), teeth * gaps * (0.65 + 0.35 * width))


def paint_eye(paint: Paint, colour: Tensor, inside: Tensor, seen: Tensor, pupil: Tensor, lid: Tensor) -> None:
    """White, iris, pupil, a highlight and the lid's shadow, in place. `lid` [N] is the upper lid's elevation."""
    spots = seen[inside]
    away = ((spots - pupil) * torch.stack([pupil[1].cos(), torch.ones(())])).norm(dim=-1)
    eye = torch.tensor([0.93, 0.93, 0.92]).expand(len(spots), 3)
    ring = paint.iris * (0.65 + 0.5 * rise(away / 0.09))[:, None]
    eye = eye + (ring - eye) * (1 - rise((away - 0.088) / 0.012))[:, None]
    eye = mix(eye, torch.tensor([0.02, 0.02, 0.02]), 1 - rise((away - 0.036) / 0.01))
    eye = mix(eye, torch.ones(3), (1.5 * spot(spots, pupil + torch.tensor([-0.03, -0.03]), 0.016)).clamp(0, 1))
    colour[inside] = eye * (0.55 + 0.45 * rise((spots[:, 1] - lid[inside]) / 0.07))[:, None]
