"""The lip-sync discriminator: do these lips go with this sound?"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s3dnerf.face import LIPS

LIP_SIZE = (48, 96)
"""height and width of the crop that the discriminator sees"""
LIP_EXTENT = 1.1
"""width of the crop in head units (outer eye corners are 1 apart): cheek to cheek, nose to chin"""
SYNC_FRAMES = 5
SYNC_MEL = 16
"""mel frames that last as long as five video frames"""


def crop_lips(images: Tensor, landmarks: Tensor) -> Tensor:
    """Crops [B, T, 3, 48, 96] of the mouth from images [B, T, 3, H, W], given landmarks [B, T, 478, 2] in their pixels.

    The box is the same for all T frames: it is centred on the mean of the lips and sized by the eye distance, so that it
    tells nothing about how far the mouth is open. Differentiable with respect to the images.
    """
    height, width = images.shape[-2:]
    centre = landmarks[:, :, list(LIPS)].mean((1, 2))
    eyes = (landmarks[:, :, 33] - landmarks[:, :, 263]).norm(dim=-1).mean(1)
    half = torch.stack([eyes, eyes * LIP_SIZE[0] / LIP_SIZE[1]], -1) * (LIP_EXTENT / 2)
    y = torch.linspace(-1, 1, LIP_SIZE[0], device=images.device)
    x = torch.linspace(-1, 1, LIP_SIZE[1], device=images.device)
    unit = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)
    places = centre[:, None, None] + unit * half[:, None, None]
    places = places * places.new_tensor([2 / width, 2 / height]) - 1
    places = places.repeat_interleave(images.shape[1], 0)
    crops = F.grid_sample(images.flatten(0, 1), places, padding_mode="border", align_corners=False)
    return crops.unflatten(0, images.shape[:2])


class LipSyncDiscriminator(nn.Module):
    """Two convolutional branches, lips and sound, that meet in one space (SyncNet; Chung and Zisserman 2016).

    Args:
        width: channels of the first layers.
        embedding: size of the embeddings.
    """

    def __init__(self, width: int = 16, embedding: int = 128):
        super().__init__()
        self.arguments = {"width": width, "embedding": embedding}
        w = width
        self.lips = nn.Sequential(block(3 * SYNC_FRAMES, 2 * w, (2, 2)), block(2 * w, 2 * w, (2, 2)),
                                  block(2 * w, 4 * w, (2, 2)), block(4 * w, 4 * w, 1), block(4 * w, 8 * w, (2, 2)),
                                  nn.Flatten(), nn.Dropout(0.2), nn.Linear(8 * w * 3 * 6, embedding))
        self.sound = nn.Sequential(block(1, w, 1), block(w, 2 * w, (2, 1)), block(2 * w, 4 * w, (2, 2)),
                                   block(4 * w, 4 * w, (2, 2)), block(4 * w, 8 * w, (2, 2)),
                                   nn.Flatten(), nn.Dropout(0.2), nn.Linear(8 * w * 5 * 2, embedding))
        self.temperature = nn.Parameter(torch.tensor(2.3))

    def embed_lips(self, lips: Tensor) -> Tensor:
        """Unit vectors [N, E] of five consecutive crops [N, 5, 3, 48, 96]."""
        return F.normalize(self.lips(lips.flatten(1, 2) * 2 - 1), dim=-1)

    def embed_sound(self, mel: Tensor) -> Tensor:
        """Unit vectors [N, E] of the mel frames [N, 80, 16] of the same 0.2 s."""
        return F.normalize(self.sound(mel[:, None] / 4), dim=-1)

    def forward(self, lips: Tensor, mel: Tensor) -> Tensor:
        """Cosine [N] between lips [N, 5, 3, 48, 96] and mel [N, 80, 16]."""
        return (self.embed_lips(lips) * self.embed_sound(mel)).sum(-1)

    def distance(self, lips: Tensor, mel_windows: Tensor) -> Tensor:
        """Mean of 1 - cosine over all five-frame windows of crops [B, T, 3, 48, 96], T >= 5 consecutive frames, with the mel
        windows [B, T, 80, 40] of those frames."""
        return (1 - self(*sync_windows(lips, mel_windows))).mean()


def sync_windows(lips: Tensor, mel_windows: Tensor) -> tuple[Tensor, Tensor]:
    """Every five consecutive crops [B * W, 5, 3, 48, 96] of [B, T, 3, 48, 96], and the sound of each, [B * W, 80, 16].

    W = T - 4; the sound is the middle of the mel window of the middle frame.
    """
    count = lips.shape[1] - SYNC_FRAMES + 1
    stacked = torch.stack([lips[:, k:k + SYNC_FRAMES] for k in range(count)], 1)
    return stacked.flatten(0, 1), central_mel(mel_windows[:, SYNC_FRAMES // 2:SYNC_FRAMES // 2 + count]).flatten(0, 1)


def central_mel(mel_windows: Tensor) -> Tensor:
    """The 16 middle columns [*, 80, 16] of mel windows [*, 80, W]."""
    start = (mel_windows.shape[-1] - SYNC_MEL) // 2
    return mel_windows[..., start:start + SYNC_MEL]


def block(channels: int, out: int, stride) -> nn.Sequential:
    """3 x 3 convolution, normalisation over groups (no statistics of a batch), activation."""
    return nn.Sequential(nn.Conv2d(channels, out, 3, stride, 1), nn.GroupNorm(min(8, out // 2), out), nn.SiLU())


def contrastive_loss(lips: Tensor, sound: Tensor, scale: Tensor) -> Tensor:
    """InfoNCE over windows of the same clip (hard negatives) and of other clips; embeddings [B, W, E].

    Window w of a clip must find its own sound among all sounds of the batch, and the other way round. Windows of the
    same clip less than three frames away are left out: they are neither right nor clearly wrong.
    """
    batch, count = lips.shape[:2]
    logits = scale * lips.flatten(0, 1) @ sound.flatten(0, 1).T
    clip = torch.arange(batch, device=lips.device).repeat_interleave(count)
    time = torch.arange(count, device=lips.device).repeat(batch)
    near = (clip[:, None] == clip) & ((time[:, None] - time).abs() < 3) & (time[:, None] != time)
    logits = logits.masked_fill(near, float("-inf"))
    target = torch.arange(batch * count, device=lips.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
