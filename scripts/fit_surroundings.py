#!/usr/bin/env python3
"""Fits what the shares of hair, neck and shoulders leave of the motion: `fit_surroundings.py --help`.

Clips of prepared shards are rendered by their own tracked lips and heads. Optical flow says where each frame shows what the
rendering shows elsewhere, and least squares turn that into `Surroundings.response`, the same for everybody: how far off a place
beside or on the head is for every degree and every bit of way that the head has moved. Nothing else of the weights changes.
"""
import argparse
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch

from s3dnerf.data.module import ClipDataModule
from s3dnerf.geometry import cast_rays
from s3dnerf.models.hub import load_model, save_model
from s3dnerf.models.places import person_at
from s3dnerf.networks.surroundings import ACROSS, ODD, PACE, Surroundings, head_motion

USUAL = (0.06, 0.06, 0.05, 0.08, 0.08, 0.02)
"""size of the numbers of `head_motion` in speech"""
SMOOTH, RIDGE = 3.0, 0.3
"""what a step between neighbours of the table, and its size, cost for every frame"""
KNEE, FAR = 1.5, 1.0
"""pixels beyond which an error counts less (Huber), and by which flow there and back may miss where it began"""
ALIKE, STRANGE = 0.06, 0.02
"""differences of colour beyond which flow is not believed, and mean square beyond which a frame is left out"""
MARGIN, STRIDE = 8, 4
"""pixels along the border that are left out, and pixels per point"""


@dataclass(frozen=True)
class Left:
    """What is left of the motion in one frame, at R points of the head frame."""

    read: np.ndarray
    """[R, N] how much of each of the table's N numbers a point reads"""
    side: np.ndarray
    """[R, 1] see `Surroundings.remainder`"""
    motion: np.ndarray
    """[6] see `head_motion`"""
    wrong: np.ndarray
    """[R, 2] what is to be added to where the frame looks in the photo, pixels"""
    weight: np.ndarray
    """[R, 2]"""

    def slopes(self, axis: int) -> np.ndarray:
        """[R, 6 N] by how much the table's numbers change the place across (0) or down (1) the picture."""
        mirrored = self.side * self.read
        return np.concatenate([number * (mirrored if odd == (axis == 1) else self.read)
                               for number, odd in zip(self.motion, ODD)], 1)


def grey(image):
    return cv2.cvtColor((image.clamp(0, 1).permute(1, 2, 0).numpy() * 255).astype(np.uint8), cv2.COLOR_RGB2GRAY)


def misplaced(ours, truth, places, person):
    """[H, W, 2] what is to be added to places [2, H, W] so that a rendering `ours` [3, H, W] of a photo with the mask `person`
    [1, H, W] shows everything where the frame `truth` does, in halves of the side, and how much it is believed, [H, W, 2]."""
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    one, two = grey(truth), grey(ours)
    there, back = flow.calc(one, two, None), flow.calc(two, one, None)
    height, width = one.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    follow = lambda picture: cv2.remap(picture, x + there[..., 0], y + there[..., 1], cv2.INTER_LINEAR,
                                       borderMode=cv2.BORDER_REPLICATE)
    plain = lambda picture: np.ascontiguousarray(picture.permute(1, 2, 0).numpy())
    edge = np.minimum(np.minimum(x, width - x), np.minimum(y, height - y)) > MARGIN
    known = (np.linalg.norm(follow(back) + there, axis=-1) < FAR) & edge
    known &= np.abs(follow(plain(ours)) - plain(truth)).mean(-1) < ALIKE
    shown = person_at(person[None], places[None])[0, 0].numpy()
    contrast = [cv2.Sobel(one.astype(np.float32), cv2.CV_32F, across, 1 - across, scale=1 / 8) for across in (1, 0)]
    return follow(plain(places)) - plain(places), (known * shown)[..., None] * (np.abs(np.stack(contrast, -1)) + 1)


def left(model, clip, frames):
    """`Left` of some frames of a clip [1], but for those that look like nothing that was rendered."""
    code, size = model.face_code.relative(clip.mesh, clip.mean_mesh[:, None])[:, frames], model.image_size
    cameras, shape = clip.cameras[:, frames], (model.image_size // STRIDE,) * 2
    with torch.inference_mode():
        found = model.render(model.encode(clip.portrait), model.drive_face(code), cameras)
    rays = cast_rays(cameras.resized(1 / STRIDE), *shape)
    points = (rays.origins - rays.directions * (rays.origins * rays.directions).sum(-1, keepdim=True))[0]
    columns, cells = model.surroundings.table[0, 0].numel(), model.surroundings.table.shape[-1] - 1
    unit = torch.eye(columns).unflatten(1, model.surroundings.table.shape[-2:])[None] / PACE
    motion = head_motion(clip.portrait.cameras, cameras)[0].numpy()
    small = lambda picture: cv2.resize(picture.astype(np.float32), shape, interpolation=cv2.INTER_AREA).reshape(-1, 2)
    for index, frame in enumerate(frames):
        ours, truth = found.image[0, index], clip.frames[0, frame]
        if (ours - truth).square().mean() < STRANGE:
            wrong, weight = misplaced(ours, truth, found.source[0, index], clip.portrait.person[0])
            share = small(weight)
            yield Left(Surroundings._read(unit, points[index]).numpy(),
                       (points[index, :, :1] * (cells / ACROSS)).clamp(-1, 1).numpy(), motion[index],
                       small(weight * wrong) / np.maximum(share, 1e-6) * (size / 2), share)


def steps(rows, columns):
    """[N, N] the sum of squared steps between neighbours of a table, as a quadratic form."""
    number = np.arange(rows * columns).reshape(rows, columns)
    pairs = np.concatenate([np.stack([number[:, 1:], number[:, :-1]], -1).reshape(-1, 2),
                            np.stack([number[1:], number[:-1]], -1).reshape(-1, 2)])
    difference = np.eye(rows * columns)[pairs[:, 0]] - np.eye(rows * columns)[pairs[:, 1]]
    return difference.T @ difference


def solve(lefts, shape, size, rounds=3):
    """`Surroundings.response` [1, 12, *shape] that explains most of what is left, in pictures of `size` pixels."""
    count = int(np.prod(shape))
    price = len(lefts) * np.kron(np.diag(np.square(USUAL)), SMOOTH * steps(*shape) + RIDGE * np.eye(count))
    answers = []
    for axis in (0, 1):
        answer = np.zeros(6 * count)
        for _ in range(rounds):
            normal, right = price.copy(), np.zeros(6 * count)
            for frame in lefts:
                slopes, wrong = frame.slopes(axis), frame.wrong[:, axis]
                weight = frame.weight[:, axis] * np.minimum(1, KNEE / np.maximum(np.abs(wrong - slopes @ answer), 1e-6))
                normal += slopes.T @ (weight[:, None] * slopes)
                right += slopes.T @ (weight * wrong)
            answer = np.linalg.solve(normal, right)
        answers.append(answer.reshape(6, *shape))
    return torch.from_numpy(np.stack(answers, 1).reshape(1, 12, *shape) / (PACE * size / 2)).float()


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path, help="prepared shards of the training people")
    parser.add_argument("weights", help="name or folder")
    parser.add_argument("output", type=Path, help="folder for the weights with the new response")
    parser.add_argument("--every", type=int, default=12, help="take every n-th clip")
    options = parser.parse_args(arguments)
    model, lefts = load_model(options.weights).eval(), []
    data = ClipDataModule(val=str(options.shards), val_clips=None, val_frames=0, frames=30, spacing=1, workers=0)
    refine, model.super_resolution = model.super_resolution, None  # colours do not matter here
    with torch.no_grad():
        model.surroundings.response.zero_()
        for clip in islice(data.val_dataloader(), 0, None, options.every):
            lefts += left(model, clip, [clip.frames.shape[1] // 2, clip.frames.shape[1] - 1])
            print(f"{clip.keys[0]}: {len(lefts)} frames", flush=True)
        model.surroundings.response.copy_(solve(lefts, model.surroundings.table.shape[-2:], model.image_size))
    model.super_resolution = refine
    save_model(model, options.output)


if __name__ == "__main__":
    main()
