"""What training asks of a rendering. Terms are means; `Objective` weighs and names them."""
from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, distributed

from s3dnerf.face import LIPS, MOVING
from s3dnerf.geometry import project
from s3dnerf.processes import processes
from s3dnerf.types import Cameras, Clip, Rendering, Window


@dataclass(frozen=True)
class Objective:
    """Weights of the terms of the loss; a term of weight 0 is not computed.

    Args:
        photometric: L1 of the final frames, the mouth weighed `lips` times.
        squared: squared error of the final frames and of the volume-rendered colour of both passes (the paper's term).
        edges: L1 of the finite differences of the final frames, weighed the same way.
        raw: L1 of the volume-rendered colour, fine and coarse pass.
        warped: L1 of the looked-up photo outside the mouth.
        opacity: squared error of opacity against the head mask.
        flow: L1 of the rendered source coordinate at landmarks against where the photo has them.
        depth: L1 of the rendered depth at landmarks against the tracked face's, head units.
        offset: error of the deformation at tracked landmarks (`systems.motion.landmark_error`), head units.
        stillness: mean region score above the brows.
        deformation: mean squared offset (the paper's term).
        lip_sync: 1 - cosine of the lip discriminator.
        adversarial: minus the patch discriminator's verdict on the final frames, which is trained beside.
        features: L1 between the patch discriminator's features of rendered and of recorded frames.
        lips: factor on pixels of the mouth box.
    """

    photometric: float = 1.0
    squared: float = 0.0
    edges: float = 1.0
    raw: float = 0.3
    warped: float = 0.3
    opacity: float = 0.3
    flow: float = 2.0
    depth: float = 0.2
    offset: float = 1.0
    stillness: float = 0.02
    deformation: float = 0.0
    lip_sync: float = 0.0
    adversarial: float = 0.0
    features: float = 0.0
    lips: float = 8.0

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """The weighted sum of named terms; `critic`, which no other term shares a parameter with, has weight 1."""
        return sum(getattr(self, name, 1.0) * value for name, value in terms.items())

    def wants(self, name: str) -> bool:
        """Whether a term has any weight."""
        return getattr(self, name) != 0


def crop(images: Tensor, window: Window) -> Tensor:
    """The window of images [B, T, C, H, W]; corners are rounded down to whole pixels. Nothing waits for the device, which alone
    knows where the corners are."""
    if (window.height, window.width) == images.shape[-2:]:
        return images
    places = lambda corner, count: corner.long()[:, None] + torch.arange(count, device=images.device)
    rows, columns = places(window.top, window.height), places(window.left, window.width)
    rows = images.gather(-2, rows[:, None, None, :, None].expand(*images.shape[:-2], -1, images.shape[-1]))
    return rows.gather(-1, columns[:, None, None, None].expand(*rows.shape[:-1], -1))


def reduced(images: Tensor, height: int, width: int) -> Tensor:
    """Images [B, T, C, H, W] averaged down to `height` x `width`."""
    return F.interpolate(images.flatten(0, 1), size=(height, width), mode="area").unflatten(0, images.shape[:2])


def landmark_pixels(mesh: Tensor, cameras: Cameras, window: Window) -> Tensor:
    """Landmarks [B, T, N, 3] in pixels of the window, [B, T, N, 2]."""
    corner = torch.stack([window.left, window.top], -1)[:, None, None]
    return project(mesh, cameras)[0] - corner


def lip_weights(lips: Tensor, window: Window, factor: float) -> Tensor:
    """[B, T, 1, H, W]: `factor` in the box around the lips (landmarks [B, T, N, 2], pixels of the window), 1 elsewhere."""
    low, high = lips.amin(2), lips.amax(2)
    margin = 0.25 * (high - low).amax(-1, keepdim=True)
    low, high = low - margin, high + margin
    y = torch.arange(window.height, device=lips.device)[:, None] + 0.5
    x = torch.arange(window.width, device=lips.device)[None] + 0.5
    edge = lambda values: values[..., None, None]
    box = (x > edge(low[..., 0])) & (x < edge(high[..., 0])) & (y > edge(low[..., 1])) & (y < edge(high[..., 1]))
    return (1 + (factor - 1) * box.float())[:, :, None]


def at_landmarks(maps: Tensor, pixels: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """Maps [B, T, C, h, w] of a window read at pixels [B, T, N, 2] of it, and which of them, [B, T, N, 1], lie inside it."""
    places = pixels * pixels.new_tensor([2 / window.width, 2 / window.height]) - 1
    read = F.grid_sample(maps.flatten(0, 1), places.flatten(0, 1)[:, :, None], align_corners=False)
    read = read.squeeze(-1).transpose(1, 2).unflatten(0, maps.shape[:2])
    return read, (places.abs() < 0.95).all(-1, keepdim=True).float()


def weighted(error: Tensor, weights: Tensor) -> Tensor:
    """Mean of `error`, weighted; `weights` broadcasts over channels.

    Of processes that train together each divides by the mean of all their weights, so that the mean of what they find is
    that of the whole batch.
    """
    return (error * weights).sum() / (mean_of_all(weights.sum()) * (error.numel() / weights.numel())).clamp_min(1e-6)


def mean_of_all(value: Tensor) -> Tensor:
    """The mean of a value over the processes that train together, all of which must ask at the same place; no gradient."""
    if processes() == 1:
        return value
    total = value.detach().clone()
    distributed.all_reduce(total)
    return total / processes()


def rows_of_all(rows: Tensor) -> Tensor:
    """The rows [B, ...] of all processes that train together, [N * B, ...], the first process's first.

    A process has the gradient of its own rows alone, N times it: what all processes compute of all rows has, after the mean
    over processes that DDP takes, the gradient that one process with the whole batch has.
    """
    if processes() == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(processes())]
    distributed.all_gather(parts, rows.detach().contiguous())
    parts[distributed.get_rank()] = rows.detach() + processes() * (rows - rows.detach())
    return torch.cat(parts)


def edge_error(image: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Weighted L1 between finite differences along x and along y."""
    across = lambda x: x[..., :, 1:] - x[..., :, :-1]
    down = lambda x: x[..., 1:, :] - x[..., :-1, :]
    return (weighted((across(image) - across(target)).abs(), weights[..., :, 1:])
            + weighted((down(image) - down(target)).abs(), weights[..., 1:, :]))


def rendering_terms(rendering: Rendering, clip: Clip, window: Window, objective: Objective) -> dict[str, Tensor]:
    """The terms that compare a rendered window with the recording; those of weight 0 are left out."""
    small = rendering.raw.shape[-2:]
    frames, mouth = crop(clip.frames, window), crop(clip.mouth, window)
    pixels = landmark_pixels(clip.mesh, clip.cameras, window)
    weights = lip_weights(pixels[:, :, list(LIPS)], window, objective.lips)
    small_frames, small_weights = reduced(frames, *small), reduced(weights, *small)
    head = reduced(crop(F.interpolate(clip.head.flatten(0, 1), size=clip.frames.shape[-2:], mode="bilinear",
                                      align_corners=False).unflatten(0, clip.head.shape[:2]), window), *small)
    terms = {
        "photometric": lambda: weighted((rendering.image - frames).abs(), weights),
        "squared": lambda: weighted((rendering.image - frames) ** 2, weights) + weighted(
            (rendering.raw - small_frames) ** 2 + (rendering.coarse - small_frames) ** 2, small_weights),
        "edges": lambda: edge_error(rendering.image, frames, weights),
        "raw": lambda: weighted((rendering.raw - small_frames).abs() + (rendering.coarse - small_frames).abs(), small_weights),
        "warped": lambda: weighted((rendering.warped - frames).abs(), weights * (1 - mouth)),
        "opacity": lambda: ((rendering.opacity - head) ** 2).mean(),
        "stillness": lambda: weighted(rendering.motion, above_brows(pixels, rendering, window)),
    }
    terms = {name: term() for name, term in terms.items() if objective.wants(name)}
    if objective.wants("flow") or objective.wants("depth"):
        terms |= landmark_terms(rendering, clip, pixels, window)
    return {name: value for name, value in terms.items() if objective.wants(name)}


def landmark_terms(rendering: Rendering, clip: Clip, pixels: Tensor, window: Window) -> dict[str, Tensor]:
    """`flow` and `depth` at landmarks; moving landmarks count double for flow."""
    size = clip.portrait.image.shape[-1]
    goal = project(clip.portrait.mesh, clip.portrait.cameras)[0][:, None] * (2 / size) - 1
    source, seen = at_landmarks(rendering.source, pixels, window)
    importance = torch.ones(pixels.shape[2], 1, device=pixels.device)
    importance[list(MOVING)] = 2.0
    flow = weighted((source - goal).abs(), seen * importance)
    length = (clip.mesh - clip.cameras.camera_to_world[..., None, :3, 3]).norm(dim=-1, keepdim=True)
    depth, _ = at_landmarks(rendering.depth, pixels, window)
    return {"flow": flow, "depth": weighted((depth - length).abs().clamp_max(0.5), seen)}


def above_brows(pixels: Tensor, rendering: Rendering, window: Window) -> Tensor:
    """[B, T, 1, h, w]: 1 above the brows, where neither speech nor a blink has anything to move."""
    height, width = rendering.motion.shape[-2:]
    y = (torch.arange(height, device=pixels.device) + 0.5) * (window.height / height)
    return (y[:, None] < pixels[..., 9, 1][..., None, None]).float().expand(*pixels.shape[:2], height, width)[:, :, None]


def info_nce(found: Tensor, right: Tensor, wrong: Tensor, temperature: float = 0.5) -> Tensor:
    """Contrastive loss of vectors [N, K] against one right vector each, [N, K], and M wrong ones, [N, M, K]: the negative
    logarithm of the softmax of cosines over `temperature` (van den Oord et al. 2018), mean over N."""
    cosines = torch.cat([F.cosine_similarity(found, right, dim=-1)[:, None],
                         F.cosine_similarity(found[:, None], wrong, dim=-1)], 1)
    return -torch.log_softmax(cosines / temperature, 1)[:, 0].mean()


def velocity_error(made: Tensor, real: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean squared error of how pictures [P, 2, C, H, W] of two frames in a row change from the first to the
    second; weights [P, 1, H, W]."""
    change = lambda frames: frames[:, 1] - frames[:, 0]
    return weighted((change(made) - change(real)) ** 2, weights)
