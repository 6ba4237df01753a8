"""The fused march, for Triton: from points along rays to what the rays gather, without anything written in between.

A program follows a block of rays of one frame, sample after sample, front to back, and stops when no ray of the block gathers
light any more. It computes what `S3DNeRF.field` and `rendering.compositing.composite` do, in single precision; the names are
theirs. Tables are in memory with their channels last and padded to a power of two (`fused_march.py`).
"""
from __future__ import annotations

import triton
import triton.language as tl

from s3dnerf.geometry import HEAD_BACK, HEAD_FRONT
from s3dnerf.networks.deformation import FACE_CENTRE, FACE_HALF
from s3dnerf.networks.mesh_motion import RAYS, SOFTNESS
from s3dnerf.networks.radiance import BACK, DENSITY_SCALE, HEAD_CENTRE, HEAD_RADII

FACE_X, FACE_Y, FACE_Z = (tl.constexpr(value) for value in FACE_CENTRE)
HALF_X, HALF_Y, HALF_Z = (tl.constexpr(value) for value in FACE_HALF)
HEAD_X, HEAD_Y, HEAD_Z = (tl.constexpr(value) for value in HEAD_CENTRE)
RADIUS_X, RADIUS_Y, RADIUS_Z = (tl.constexpr(value) for value in HEAD_RADII)
END, SCALE, EDGE, LASH = (tl.constexpr(value) for value in (BACK, DENSITY_SCALE, SOFTNESS, RAYS))
NEARER, DEEP = tl.constexpr(HEAD_FRONT - HEAD_BACK), tl.constexpr(HEAD_FRONT + HEAD_BACK)
CAMERA = tl.constexpr(19)
"""numbers of a camera: rotation 9, translation 3, projection 6, distance of the head"""
WHERE = tl.constexpr(16)
"""rows of a matrix that reads a place: x, y, z, their squares, and zeros, as the product wants"""


@triton.jit
def matrix(start, rows: tl.constexpr, columns: tl.constexpr):
    """[rows, columns] from memory."""
    return tl.load(start + tl.arange(0, rows)[:, None] * columns + tl.arange(0, columns)[None])


@triton.jit
def product(left, right):
    """A product of matrices, whose factors the matrix units round to 10 bits (TF32): no look-up waits for more."""
    return tl.dot(left, right, input_precision="tf32")


@triton.jit
def silu(x):
    return x * tl.sigmoid(x)


@triton.jit
def smooth(rise):
    """See `deformation.smooth`."""
    rise = tl.minimum(tl.maximum(rise, 0.0), 1.0)
    return rise * rise * (3 - 2 * rise)


@triton.jit
def nearby(place, size):
    """Both neighbours of a place among `size` cells, which stays within them, and how far it is from the first."""
    place = tl.minimum(tl.maximum(place, 0.0), size - 1.0)
    low = place.to(tl.int32)
    return low, tl.minimum(low + 1, size - 1), place - low


@triton.jit
def on_map(start, x, y, height, width):
    """Bilinear, of a map of numbers [height, width] at its cells' coordinates [P]."""
    left, right, across = nearby(x, width)
    up, down, along = nearby(y, height)
    above = tl.load(start + up * width + left) * (1 - across) + tl.load(start + up * width + right) * across
    below = tl.load(start + down * width + left) * (1 - across) + tl.load(start + down * width + right) * across
    return above * (1 - along) + below * along


@triton.jit
def on_plane(start, u, v, side: tl.constexpr, channels: tl.constexpr):
    """Bilinear, of a plane [side, side, channels] at [P] in [-1, 1]; [P, channels]."""
    left, right, across = nearby((u + 1) * (side / 2) - 0.5, side)
    up, down, along = nearby((v + 1) * (side / 2) - 0.5, side)
    channel, across, along = tl.arange(0, channels)[None], across[:, None], along[:, None]
    above = tl.load(start + (up * side + left)[:, None] * channels + channel) * (1 - across) \
        + tl.load(start + (up * side + right)[:, None] * channels + channel) * across
    below = tl.load(start + (down * side + left)[:, None] * channels + channel) * (1 - across) \
        + tl.load(start + (down * side + right)[:, None] * channels + channel) * across
    return above * (1 - along) + below * along


@triton.jit
def on_planes(start, x, y, z, side: tl.constexpr, channels: tl.constexpr):
    """See `triplane.sample_planes`; [P, channels]."""
    plane: tl.constexpr = side * side * channels
    total = on_plane(start, x, y, side, channels) + on_plane(start + plane, x, z, side, channels)
    return (total + on_plane(start + 2 * plane, y, z, side, channels)) / 3


@triton.jit
def on_lattice(start, x, y, z, nx: tl.constexpr, ny: tl.constexpr, nz: tl.constexpr, modulations: tl.constexpr):
    """Trilinear, of a lattice [nz, ny, nx, modulations + 4] at [P] in [-1, 1], nothing outside: modulation [P, modulations],
    offset along x, y and z, region score."""
    x, y, z = (x + 1) * ((nx - 1) / 2), (y + 1) * ((ny - 1) / 2), (z + 1) * ((nz - 1) / 2)
    held = (x >= 0) & (x <= nx - 1) & (y >= 0) & (y <= ny - 1) & (z >= 0) & (z <= nz - 1)
    west, east, across = nearby(x, nx)
    north, south, along = nearby(y, ny)
    front, back, through = nearby(z, nz)
    row: tl.constexpr = modulations + 4
    modulation = x[:, None] * 0 + tl.zeros((1, modulations), tl.float32)
    right, down, away, region = x * 0, x * 0, x * 0, x * 0
    for corner in tl.static_range(8):
        place = (east if corner & 1 else west) + nx * ((south if corner & 2 else north) + ny * (back if corner & 4 else front))
        share = (across if corner & 1 else 1 - across) * (along if corner & 2 else 1 - along) \
            * (through if corner & 4 else 1 - through)
        share = tl.where(held, share, 0.0)
        at = start + place * row
        modulation += share[:, None] * tl.load(at[:, None] + tl.arange(0, modulations)[None])
        right += share * tl.load(at + modulations)
        down += share * tl.load(at + (modulations + 1))
        away += share * tl.load(at + (modulations + 2))
        region += share * tl.load(at + (modulations + 3))
    return modulation, right, down, away, region


@triton.jit
def displaced(x, y, z, lattice, maps, nx: tl.constexpr, ny: tl.constexpr, nz: tl.constexpr, modulations: tl.constexpr,
              rows: tl.constexpr, columns: tl.constexpr):
    """See `S3DNeRF.displace`: where points [P] were in the photo's face, their modulation, region score and inside."""
    u, v, w = (x - FACE_X) / HALF_X, (y - FACE_Y) / HALF_Y, (z - FACE_Z) / HALF_Z
    modulation, right, down, away, region = on_lattice(lattice, u, v, w, nx, ny, nz, modulations)
    window = smooth((1 - tl.abs(u)) / 0.1) * smooth((1 - tl.abs(v)) / 0.1) * smooth((1 - tl.abs(w)) / 0.1)
    across, along, size = (u + 1) * ((columns - 1) / 2), (v + 1) * ((rows - 1) / 2), rows * columns
    above_x, above_y = on_map(maps, across, along, rows, columns), on_map(maps + size, across, along, rows, columns)
    eye_x, eye_y = on_map(maps + 2 * size, across, along, rows, columns), on_map(maps + 3 * size, across, along, rows, columns)
    eye = tl.sigmoid(on_map(maps + 4 * size, across, along, rows, columns) / LASH)
    carried_x, carried_y = (above_x + eye * (eye_x - above_x)) * window, (above_y + eye * (eye_y - above_y)) * window
    inside = tl.sigmoid(-on_map(maps + 5 * size, across, along, rows, columns) / EDGE) * window
    return x + right + carried_x, y + down + carried_y, z + away, modulation, region, inside


@triton.jit
def in_photo(camera, x, y, z):
    """See `S3DNeRF._to_source`: place in the photo, and how deep in the cube of the tri-planes."""
    across = tl.load(camera) * x + tl.load(camera + 1) * y + tl.load(camera + 2) * z + tl.load(camera + 9)
    along = tl.load(camera + 3) * x + tl.load(camera + 4) * y + tl.load(camera + 5) * z + tl.load(camera + 10)
    depth = tl.load(camera + 6) * x + tl.load(camera + 7) * y + tl.load(camera + 8) * z + tl.load(camera + 11)
    depth = tl.maximum(depth, 1e-4)
    across, along = across / depth, along / depth
    u = tl.load(camera + 12) * across + tl.load(camera + 13) * along + tl.load(camera + 14) - 1
    v = tl.load(camera + 15) * across + tl.load(camera + 16) * along + tl.load(camera + 17) - 1
    return u, v, (2 * (depth - tl.load(camera + 18)) + NEARER) / DEEP


@triton.jit
def place_row(x, y, z):
    """[P, 16]: x, y, z, their squares, zeros."""
    column = tl.arange(0, WHERE)[None]
    axis = tl.where(column % 3 == 0, x[:, None], tl.where(column % 3 == 1, y[:, None], z[:, None]))
    return tl.where(column < 3, axis, tl.where(column < 6, axis * axis, 0.0))


@triton.jit
def head_prior(x, y, z):
    """See `radiance.head_prior`."""
    u, v, w = (x - HEAD_X) / RADIUS_X, (y - HEAD_Y) / RADIUS_Y, (z - HEAD_Z) / RADIUS_Z
    radius = tl.sqrt(u * u + v * v + w * w)
    return 8 * (2 * tl.sigmoid(12 * (1 - radius)) - 1) - 3 - 12 * tl.sigmoid((z - END) / 0.03)


@triton.jit
def decoded(photo, where, modulation, inside, decoder, modulations: tl.constexpr, width: tl.constexpr, out: tl.constexpr):
    """See `RadianceField.forward`, from the first layer's share `photo` [P, width] of the tri-planes on; [P, out]."""
    column, wide = tl.arange(0, width)[None], tl.arange(0, out)[None]
    part, square, big = WHERE * width, width * width, modulations * width
    biases = decoder + 2 * part + 2 * big + 2 * square + width * out
    photo += tl.load(biases + column) + tl.dot(where, matrix(decoder, WHERE, width), input_precision="ieee") \
        + product(modulation, matrix(decoder + 2 * part, modulations, width))
    mouth = tl.load(biases + width + column) + tl.dot(where, matrix(decoder + part, WHERE, width), input_precision="ieee") \
        + product(modulation, matrix(decoder + 2 * part + big, modulations, width))
    layers = decoder + 2 * part + 2 * big
    mouth = tl.load(biases + 2 * width + column) + product(silu(mouth), matrix(layers, width, width))
    mixed = photo + inside[:, None] * (mouth - photo)
    hidden = tl.load(biases + 3 * width + column) + product(silu(mixed), matrix(layers + square, width, width))
    return tl.load(biases + 4 * width + wide) + product(silu(hidden), matrix(layers + 2 * square, width, out))


@triton.jit
def looked(x, y, z, who, people, lattice, maps, planes, person, camera, decoder, scales: tl.constexpr, side: tl.constexpr,
           channels: tl.constexpr, nx: tl.constexpr, ny: tl.constexpr, nz: tl.constexpr, modulations: tl.constexpr,
           rows: tl.constexpr, columns: tl.constexpr, size: tl.constexpr, width: tl.constexpr, out: tl.constexpr):
    """See `S3DNeRF.field`: density of points [P], what is decoded there [P, out], place in the photo, inside, region score."""
    x, y, z, modulation, region, inside = displaced(x, y, z, lattice, maps, nx, ny, nz, modulations, rows, columns)
    u, v, through = in_photo(camera, x, y, z)
    photo = x[:, None] * 0 + tl.zeros((1, width), tl.float32)
    for scale in tl.static_range(scales):
        start = planes + who * (3 * (side // 2 ** scale) * (side // 2 ** scale) * channels)
        photo += product(on_planes(start, u, v, through, side // 2 ** scale, channels), matrix(decoder, channels, width))
        planes += people * (3 * (side // 2 ** scale) * (side // 2 ** scale) * channels)
        decoder += channels * width
    raw = decoded(photo, place_row(x, y, z), modulation, inside, decoder, modulations, width, out)
    column = tl.arange(0, out)[None]
    density = tl.sum(tl.where(column == 0, raw, 0.0), 1) + head_prior(x, y, z)
    density = tl.where(density > 20, density, tl.log(1 + tl.exp(tl.minimum(density, 20.0)))) * SCALE
    shown = on_map(person, (u + 1) * (size / 2) - 0.5, (v + 1) * (size / 2) - 0.5, size, size)
    colour = tl.where((column >= 1) & (column <= 3), tl.sigmoid(raw) * 1.002 - 0.001, raw)
    return density * tl.minimum(3 * shown, 1.0), colour, u, v, inside, region


# numbers of what happens to be rendered, for which nothing is to be compiled anew
@triton.jit(do_not_specialize=["frames", "rays", "samples"])
def march_kernel(origins, directions, starts, ends, middles, live, planes, lattice, maps, person, camera, decoder, sums, weights,
                 frames, rays, samples, rest, scales: tl.constexpr, side: tl.constexpr, channels: tl.constexpr,
                 nx: tl.constexpr, ny: tl.constexpr, nz: tl.constexpr, modulations: tl.constexpr, rows: tl.constexpr,
                 columns: tl.constexpr, size: tl.constexpr, width: tl.constexpr, out: tl.constexpr,
                 block: tl.constexpr):
    """Follows `block` rays of a frame; the grid is [blocks of rays, frames of all identities]."""
    frame = tl.program_id(1)
    ray = tl.program_id(0) * block + tl.arange(0, block)
    real, index, who = ray < rays, frame * rays + tl.minimum(ray, rays - 1), frame // frames
    lattice, maps = lattice + frame * (nx * ny * nz * (modulations + 4)), maps + frame * (6 * rows * columns)
    person, camera, wide = person + who * (size * size), camera + who * CAMERA, tl.arange(0, out)[None]
    origin_x, origin_y, origin_z = (tl.load(origins + index * 3), tl.load(origins + index * 3 + 1), tl.load(origins + index * 3 + 2))
    way_x, way_y, way_z = (tl.load(directions + index * 3), tl.load(directions + index * 3 + 1), tl.load(directions + index * 3 + 2))
    alive = tl.where(real, tl.load(live + index), 0.0)
    light, optical = alive, alive * 0
    gathered, painted = light[:, None] * tl.zeros((1, out), tl.float32), light[:, None] * tl.zeros((1, out), tl.float32)
    across, along, mouth, motion, opacity, depth = optical, optical, optical, optical, optical, optical
    step = 0
    while (step < samples) & (tl.max(light, 0) > rest):
        at = index * samples + step
        distance, length = tl.load(middles + at), tl.load(ends + at) - tl.load(starts + at)
        density, colour, u, v, inside, region = looked(
            origin_x + way_x * distance, origin_y + way_y * distance, origin_z + way_z * distance, who,
            tl.num_programs(1) // frames, lattice, maps, planes, person, camera, decoder, scales, side, channels, nx, ny, nz,
            modulations, rows, columns, size, width, out)
        weight = light * (1 - tl.exp(-density * length))
        gathered += weight[:, None] * colour
        painted += (weight * inside)[:, None] * colour
        across, along, mouth, motion = across + weight * u, along + weight * v, mouth + weight * inside, motion + weight * region
        opacity, depth, optical = opacity + weight, depth + weight * distance, optical + density * length
        light = alive * tl.exp(-optical)
        tl.store(weights + at, weight, mask=real)
        step += 1
    place = sums + index * (out + 9)
    tl.store(place[:, None] + wide, gathered, mask=real[:, None])
    tl.store(place[:, None] + (out - 1) + wide, painted, mask=real[:, None] & (wide >= 1) & (wide <= 3))
    keep(place + (out + 3), real, across, along, mouth, motion, opacity, depth)


@triton.jit
def keep(place, real, across, along, mouth, motion, opacity, depth):
    """Writes what is one number per ray."""
    tl.store(place, across, mask=real)
    tl.store(place + 1, along, mask=real)
    tl.store(place + 2, mouth, mask=real)
    tl.store(place + 3, motion, mask=real)
    tl.store(place + 4, opacity, mask=real)
    tl.store(place + 5, depth, mask=real)
