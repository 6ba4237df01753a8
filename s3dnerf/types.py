"""The records that flow through the package, and the conventions that they keep.

* Images are RGB float32 in [0, 1], channels first. Speech is mono float32 in [-1, 1] at 16 kHz. Video is 25 fps.
* Cameras are OpenCV (x right, y down, z forward), stored camera-to-world, intrinsics in pixels, pixel centres at +0.5.
* The world is the *head frame*: origin inside the head, x to the viewer's right, y down, z away from the viewer of a
  frontal face; one unit is the distance between the outer eye corners of the metric face. The head never moves in this
  frame: head motion is camera motion.
* Shapes: B batch, T frames, H x W pixels, R rays, S samples, C channels. `*` stands for any leading sizes.
"""
from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Optional

import torch
from torch import Tensor

from s3dnerf.device import constant


@dataclass(frozen=True)
class TensorRecord:
    """A frozen dataclass of tensors (or nested records) that share their leading sizes."""

    def map(self, function):
        """The same record with `function` applied to every tensor; fields that are None or plain stay as they are."""

        def apply(value):
            if isinstance(value, TensorRecord):
                return value.map(function)
            return function(value) if isinstance(value, Tensor) else value

        return dataclasses.replace(self, **{f.name: apply(getattr(self, f.name)) for f in dataclasses.fields(self)})

    def to(self, *args, **kwargs):
        """Moves every tensor, as `Tensor.to` does (Lightning calls this for batches)."""
        return self.map(lambda tensor: tensor.to(*args, **kwargs))

    def pin_memory(self):
        """Page-locks every tensor (the data loader calls this)."""
        return self.map(lambda tensor: tensor.pin_memory())

    def __getitem__(self, index):
        """Indexes the leading sizes of every tensor."""
        return self.map(lambda tensor: tensor[index])

    @classmethod
    def stack(cls, records):
        """A batch: records of equal shapes stacked along a new first size; None stays None, plain values become lists."""
        first, values = records[0], {}
        for field in dataclasses.fields(cls):
            column = [getattr(record, field.name) for record in records]
            value = getattr(first, field.name)
            if isinstance(value, TensorRecord):
                values[field.name] = type(value).stack(column)
            elif isinstance(value, Tensor):
                values[field.name] = torch.stack(column)
            else:
                values[field.name] = None if value is None else column
        return cls(**values)


@dataclass(frozen=True)
class Cameras(TensorRecord):
    """Pinhole cameras."""

    camera_to_world: Tensor
    """[*, 4, 4] pose of the camera in the head frame."""
    intrinsics: Tensor
    """[*, 3, 3] in pixels of the image that they belong to."""

    def resized(self, factor: float) -> "Cameras":
        """The same cameras for images `factor` times as large."""
        scale = constant(((factor,), (factor,), (1.0,)), self.intrinsics)
        return Cameras(self.camera_to_world, self.intrinsics * scale)

    def cropped(self, left: Tensor, top: Tensor) -> "Cameras":
        """The same cameras for a window whose corner is at pixel (left, top), each [*]."""
        intrinsics = self.intrinsics.clone()
        intrinsics[..., 0, 2] -= left
        intrinsics[..., 1, 2] -= top
        return Cameras(self.camera_to_world, intrinsics)


@dataclass(frozen=True)
class Window(TensorRecord):
    """A rectangle of a frame: what is rendered when not all of it is wanted."""

    left: Tensor
    """[B] pixels from the frame's left edge, whole numbers."""
    top: Tensor
    """[B] pixels from the frame's upper edge, whole numbers."""
    height: int
    """pixels, the same for the whole batch; a multiple of 4."""
    width: int
    """pixels, the same for the whole batch; a multiple of 4."""


@dataclass(frozen=True)
class Rays(TensorRecord):
    """Rays in the head frame."""

    origins: Tensor
    """[*, R, 3]"""
    directions: Tensor
    """[*, R, 3] unit length."""
    near: Tensor
    """[*, R, 1] distance at which the head may begin."""
    far: Tensor
    """[*, R, 1] distance at which it has ended."""


@dataclass(frozen=True)
class Samples(TensorRecord):
    """Intervals along rays: each sample stands for one interval and is evaluated at one point inside it."""

    starts: Tensor
    """[*, R, S, 1] distances, ascending."""
    ends: Tensor
    """[*, R, S, 1] distances; `ends[s] == starts[s + 1]`."""
    middles: Tensor
    """[*, R, S, 1] where the field is evaluated, starts <= middles <= ends."""


@dataclass(frozen=True)
class FieldSamples(TensorRecord):
    """What a field says about points."""

    density: Tensor
    """[*, R, S, 1] non-negative, per unit of length."""
    features: Tensor
    """[*, R, S, C]; the first three are colour in [0, 1]."""
    source: Tensor
    """[*, R, S, 2] where the point lies in the source photo, in [-1, 1] across the photo (x right, y down)."""
    inside: Tensor
    """[*, R, S, 1] in [0, 1]: share of the point that is the inside of the mouth, which the photo may not show."""
    motion: Tensor
    """[*, R, S, 1] in [0, 1]: region score, how much the speech reaches this point."""


@dataclass(frozen=True)
class RayColours(TensorRecord):
    """Field samples composited along rays."""

    features: Tensor
    """[*, R, C] weighted by opacity; the first three are colour."""
    source: Tensor
    """[*, R, 2] weighted by opacity."""
    inside: Tensor
    """[*, R, 1]"""
    motion: Tensor
    """[*, R, 1]"""
    opacity: Tensor
    """[*, R, 1] in [0, 1]."""
    depth: Tensor
    """[*, R, 1] expected distance along the ray, of the part that is not empty."""
    weights: Tensor
    """[*, R, S, 1]"""
    samples: Samples
    """the intervals that were composited."""


@dataclass(frozen=True)
class Portrait(TensorRecord):
    """The single photo, cropped to a square around the head."""

    image: Tensor
    """[*, 3, H, W]"""
    mask: Tensor
    """[*, 1, H, W] in [0, 1]: head with hair, without torso."""
    cameras: Cameras
    """[*]"""
    mesh: Tensor
    """[*, 478, 3] face landmarks in the head frame."""
    person: Tensor
    """[*, 1, H, W] in [0, 1]: the whole person, with torso; what is left is background."""


@dataclass(frozen=True)
class Motion(TensorRecord):
    """What drives a face, frame by frame, whatever it came from (speech, or somebody's tracked lips)."""

    code: Tensor
    """[*, T, K] lip code (offset from the speaker's mean lips) and eye opening; see `face.FaceCode`."""
    tokens: Tensor
    """[*, T, 8, D] speech tokens, in time order around the frame."""
    change: Optional[Tensor] = None
    """[*, T, 5, h, w] over the photo: what to add to the place where it is looked up, in [-1, 1] across it, and to its
    colour (`PhotoBasis`); None where the photo stays as it is."""


@dataclass(frozen=True)
class Appearance(TensorRecord):
    """What the encoder knows about one identity; computed once, used for every frame."""

    planes: tuple
    """one tri-plane per scale, finest first, each [B, 3, C, h, w] (xy, xz, yz)."""
    lattice: Tensor
    """[B, G, D] fused features at the lattice points (see `CrossModalDeformationField`)."""
    portrait: Portrait
    """[B] the photo that it was made from."""
    source_code: Tensor
    """[B, K] absolute face code of the photo."""
    detail: Optional[Tensor] = None
    """[B, 3, H, W] what a rendering of the photo lacks of it (`S3DNeRF.with_detail`); None where nothing is to be added."""
    occupancy: Optional[TensorRecord] = None
    """where the head is (`S3DNeRF.with_occupancy`), `rendering.occupied.Occupancy` [B]; None asks everywhere."""

    def map(self, function):
        planes = tuple(function(plane) for plane in self.planes)
        return dataclasses.replace(super().map(function), planes=planes)


@dataclass(frozen=True)
class Clip(TensorRecord):
    """T consecutive frames of a person who speaks, and a photo of the same person."""

    frames: Tensor
    """[B, T, 3, H, W]"""
    head: Tensor
    """[B, T, 1, H/4, W/4] head mask in {0, 1}."""
    mouth: Tensor
    """[B, T, 1, H/4, W/4] inside of the lips in {0, 1}."""
    cameras: Cameras
    """[B, T]"""
    mesh: Tensor
    """[B, T, 478, 3] face landmarks in the head frame."""
    speech: Tensor
    """[B, T, C, W] speech features in a window centred on each frame (mel by default, then the same as `mel`)."""
    mel: Tensor
    """[B, T, 80, 40] log-mel window centred on each frame, for the lip-sync discriminator."""
    mean_mesh: Tensor
    """[B, 478, 3] the person's mean face over all clips."""
    portrait: Portrait
    """[B]"""
    keys: list
    """B clip names."""
    sound: Optional[Tensor] = None
    """[B, T * 640] at 16 kHz, of whole clips; None where frames are chosen."""


@dataclass(frozen=True)
class Rendering(TensorRecord):
    """Frames and what they were made of. h x w is the resolution of the rays."""

    image: Tensor
    """[B, T, 3, H, W] after super-resolution."""
    warped: Tensor
    """[B, T, 3, H, W] the photo looked up at the rendered source coordinate, before super-resolution."""
    raw: Tensor
    """[B, T, 3, h, w] volume-rendered colour of the fine pass, over the photo's background."""
    coarse: Tensor
    """[B, T, 3, h, w] the same of the coarse pass."""
    opacity: Tensor
    """[B, T, 1, h, w]"""
    depth: Tensor
    """[B, T, 1, h, w] distance from the camera, head units."""
    source: Tensor
    """[B, T, 2, H, W] where each pixel looks into the photo, in [-1, 1]."""
    inside: Tensor
    """[B, T, 1, H, W] inside of the mouth, in [0, 1]."""
    painted: Tensor
    """[B, T, 1, H, W] share of the pixel that the rendered inside of the mouth makes up: `inside`, less what the photo,
    being open itself, already shows."""
    motion: Tensor
    """[B, T, 1, h, w] region score, in [0, 1]."""


@dataclass(frozen=True)
class PackedSamples(TensorRecord):
    """Intervals of any number per ray, all in one row: those of ray 0, then those of ray 1, each ray's ascending."""

    ray: Tensor
    """[N] whole numbers, ascending: which ray."""
    rank: Tensor
    """[N] whole numbers: how many samples of the same ray come before."""
    starts: Tensor
    """[N, 1] distances."""
    length: Tensor
    """[N, 1] the interval is looked at in its middle."""


@dataclass(frozen=True)
class PointSamples(TensorRecord):
    """What a person's field says about points."""

    density: Tensor
    """[N, 1] non-negative, per unit of length."""
    colour: Tensor
    """[N, 3] in [0, 1]."""
    ambient: Tensor
    """[N, 1] size of what speech does at the point: of the audio coordinate, or of the offset."""


@dataclass(frozen=True)
class PackedColours(TensorRecord):
    """Packed samples composited along their rays."""

    colour: Tensor
    """[R, 3] weighted by opacity."""
    opacity: Tensor
    """[R, 1] in [0, 1]."""
    depth: Tensor
    """[R, 1] expected distance along the ray, of the part that is not empty; 0 where all is."""
    ambient: Tensor
    """[R, 1] weighted by opacity, through which no gradient passes."""


@dataclass(frozen=True)
class Condition(TensorRecord):
    """What one person's head is told, frame by frame."""

    code: Tensor
    """[*, K] code of the speech, or of tracked lips."""
    eyes: Tensor
    """[*, 1] eye opening as in `face.FaceCode`, tenths of a head unit above the mean of all people."""
    frame: Tensor
    """[*] whole numbers: the recorded frame whose appearance is wanted; -1 for none."""
    body: Optional[Tensor] = None
    """[*, 4] the torso's own motion, see `networks.torso`; where None, it goes by the head's pose."""


@dataclass(frozen=True)
class PersonVideo(TensorRecord):
    """A recording of one person, all of it."""

    frames: Tensor
    """[T, S, S, 3] uint8"""
    head: Tensor
    """[T, S/4, S/4] bool: head with hair, without the neck."""
    torso: Tensor
    """[T, S/4, S/4] bool: the rest of the person."""
    cameras: Cameras
    """[T]"""
    mesh: Tensor
    """[T, 478, 3] face landmarks in the head frame."""
    mel: Tensor
    """[T, 80, 40] log-mel window centred on each frame."""
    background: Tensor
    """[S, S, 3] uint8: what is behind the person."""
    sound: Tensor
    """[T * 640] at 16 kHz."""
    body: Tensor
    """[T, 4] the torso's own motion about `face.COLLAR`, as in `data.body.BodyTrack`."""


@dataclass(frozen=True)
class PixelBatch(TensorRecord):
    """Pixels of some frames of a recording."""

    frame: Tensor
    """[F] whole numbers: which frames."""
    cameras: Cameras
    """[F]"""
    pixels: Tensor
    """[F, R, 2] centres of the pixels."""
    colour: Tensor
    """[F, R, 3] what the recording shows there."""
    background: Tensor
    """[F, R, 3] what is behind the person there."""
    head: Tensor
    """[F, R, 1] in [0, 1]: head mask."""
    torso: Tensor
    """[F, R, 1] in [0, 1]: torso mask."""
    person: Tensor
    """[F, R, 1] in [0, 1]: where the person is for sure, head or torso."""
    free: Tensor
    """[F, R, 1] in [0, 1]: at and around the head, where nothing but the background can be behind it."""
    still: Tensor
    """[F, R, 1] in {0, 1}: outside the box of the lower face, where speech should move nothing."""
    patch: int
    """side of the square that the pixels of a frame make up, row by row; 0 where they are scattered."""


@dataclass(frozen=True)
class PersonRendering(TensorRecord):
    """Frames of one person, and their layers."""

    image: Tensor
    """[T, 3, H, W] head over torso over background."""
    head: Tensor
    """[T, 3, H, W] the head alone, weighted by its opacity."""
    opacity: Tensor
    """[T, 1, H, W] of the head."""
    depth: Tensor
    """[T, 1, H, W] of the head, distance from the camera; 0 where there is none."""
    torso: Tensor
    """[T, 3, H, W] the torso alone, weighted by its opacity."""
    torso_opacity: Tensor
    """[T, 1, H, W]"""
    ambient: Tensor
    """[T, 1, H, W] how much speech does there, weighted by opacity."""
