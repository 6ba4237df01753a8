"""The lip-sync discriminator: do these lips go with this sound?"""
from __future__ import annotations

from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s3dnerf.errors import InputError
from s3dnerf.face import EYE_CORNERS, LIPS, RIGID
from s3dnerf.media import MEL_BINS, MEL_CONTEXT

LIP_SIZE = (48, 96)
"""height and width of the crop that the discriminator sees"""
LIP_EXTENT = 1.1
"""width of the crop in head units (outer eye corners are 1 apart): cheek to cheek, nose to chin"""
HARD_SHIFT = 3
"""frames from which on a sound counts as out of step with the lips"""
LIP_SHARE = 0.36
"""width of the crop in sides of the square around a head, about"""


def shrink_of(size: int) -> int:
    """By how much `crop_lips` averages frames down that are the square around a head, `size` pixels wide."""
    return max(1, round(LIP_SHARE * size / LIP_SIZE[1]))


def crop_lips(images: Tensor, landmarks: Tensor, shrink: Optional[int] = None) -> Tensor:
    """Crops [B, T, 3, 48, 96] of the mouth from images [B, T, 3, H, W], given landmarks [B, T, 478, 2] in their pixels.

    The box goes with the landmarks that speech does not move, at the distance that the lips have from them on average over
    the T frames, and is sized by the mean eye distance: it takes the motion of the head out, three quarters of all that a
    mouth moves, and tells nothing about how the mouth moves. Large images are averaged down first, so that nothing is
    skipped, by `shrink`; None finds out from the landmarks, for which a device has to be waited. Differentiable with respect
    to the images.
    """
    first, last = EYE_CORNERS
    rigid = landmarks[:, :, list(RIGID)].mean(2)
    centre = rigid + (landmarks[:, :, list(LIPS)].mean(2) - rigid).mean(1, keepdim=True)
    eyes = (landmarks[:, :, first] - landmarks[:, :, last]).norm(dim=-1).mean(1)
    half = torch.stack([eyes, eyes * LIP_SIZE[0] / LIP_SIZE[1]], -1) * (LIP_EXTENT / 2)
    if shrink is None:
        each = (2 * half[:, 0].detach() / LIP_SIZE[1]).round().clamp_min(1).tolist()
        if len(set(each)) > 1:  # every clip as it would be alone
            return torch.cat([crop_lips(images[i:i + 1], landmarks[i:i + 1]) for i in range(len(images))])
        shrink = int(each[0])
    pictures = F.avg_pool2d(images.flatten(0, 1), shrink) if shrink > 1 else images.flatten(0, 1)
    size = centre.new_tensor(pictures.shape[:-3:-1]) * shrink
    y, x = ((torch.arange(count, device=images.device) + 0.5) * 2 / count - 1 for count in LIP_SIZE)
    unit = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)
    places = (centre[:, :, None, None] + unit * half[:, None, None, None]) * (2 / size) - 1
    crops = F.grid_sample(pictures, places.flatten(0, 1), padding_mode="border", align_corners=False)
    return crops.unflatten(0, images.shape[:2])


class LipSyncDiscriminator(nn.Module):
    """Two branches, lips and sound, that meet in one space (SyncNet; Chung and Zisserman 2016), over windows of many frames.

    Each frame, a crop of the lips or half a second of sound around it, becomes a vector by itself. A window is the vectors
    of consecutive frames less their mean, so that what does not change, the speaker above all, says nothing; convolutions
    over time turn each into an embedding, and those of the whole window, one after another, are brought to unit length
    together: frames in which more happens count for more.

    Args:
        width: channels of the first layer of the lips' branch; the last has four times as many.
        channels: size of a frame's vector, and channels of the sound's branch.
        embedding: size of a frame's embedding.
        frames: consecutive video frames that are judged at once, at least 3.
        dropout: share of what the last convolutions found that is hidden while training.

    Raises:
        InputError: for fewer frames.
    """

    def __init__(self, width: int = 16, channels: int = 120, embedding: int = 48, frames: int = 9, dropout: float = 0.2):
        super().__init__()
        if frames < 3:
            raise InputError(f"found frames={frames} for the lip-sync discriminator; expected 3 or more")
        self.arguments = {"width": width, "channels": channels, "embedding": embedding, "frames": frames, "dropout": dropout}
        self.frames = frames
        w, c = width, channels
        self.lips = nn.Sequential(block(3, w, 2, size=5), block(w, 2 * w, 2), block(2 * w, 2 * w), block(2 * w, 3 * w, 2),
                                  block(3 * w, 4 * w), block(4 * w, 4 * w, 2), nn.Flatten(), nn.Dropout(dropout),
                                  nn.Linear(4 * w * 3 * 6, c))
        self.sound = nn.Sequential(block(MEL_BINS, c, 1, nn.Conv1d, 5), block(c, c, 2, nn.Conv1d), block(c, c, 2, nn.Conv1d),
                                   nn.Flatten(), nn.Dropout(dropout), nn.Linear(c * MEL_CONTEXT // 4, c))
        self.lips_in_time, self.sound_in_time = TimeMixer(channels, embedding), TimeMixer(channels, embedding)
        self.temperature = nn.Parameter(torch.tensor(2.3))

    def lip_features(self, lips: Tensor) -> Tensor:
        """Vectors [B, T, C] of crops [B, T, 3, 48, 96], each frame by itself."""
        return self.lips(lips.flatten(0, 1) * 2 - 1).unflatten(0, lips.shape[:2])

    def sound_features(self, mel: Tensor) -> Tensor:
        """Vectors [B, T, C] of the mel windows [B, T, 80, 40] of frames."""
        return self.sound(mel.flatten(0, 1) / 4).unflatten(0, mel.shape[:2])

    def embed_lips(self, features: Tensor) -> Tensor:
        """Unit vectors [B, W, frames * E] of all W = T - frames + 1 windows of the lips' vectors [B, T, C].

        InputError if T is less than the discriminator's frames.
        """
        return self.lips_in_time(self._windows(features)).flatten(2)

    def embed_sound(self, features: Tensor) -> Tensor:
        """The same for the sound's vectors."""
        return self.sound_in_time(self._windows(features)).flatten(2)

    def forward(self, lips: Tensor, mel: Tensor) -> Tensor:
        """Cosines [B, W, W] between every window of crops [B, T, 3, 48, 96] of T consecutive frames (row) and the sound of
        every window (column), given the mel windows [B, T, 80, 40] of those frames. InputError as in `embed_lips`."""
        return self.embed_lips(self.lip_features(lips)) @ self.embed_sound(self.sound_features(mel)).transpose(1, 2)

    def match(self, images: Tensor, landmarks: Tensor, mel: Tensor) -> Tensor:
        """The same, given whole images [B, T, 3, H, W] and landmarks [B, T, 478, 2] in their pixels."""
        return self(crop_lips(images, landmarks), mel)

    def distance(self, lips: Tensor, mel: Tensor) -> Tensor:
        """Mean of 1 - cosine over all windows and their own sounds; see `forward`."""
        return (1 - self(lips, mel).diagonal(dim1=1, dim2=2)).mean()

    def _windows(self, features: Tensor) -> Tensor:
        """[B, W, frames, C] less the mean over the frames."""
        if features.shape[1] < self.frames:
            raise InputError(f"found {features.shape[1]} frames; the lip-sync discriminator needs {self.frames} consecutive "
                             "ones or more")
        return centred(features.unfold(1, self.frames, 1).transpose(-1, -2), 2)


class TimeMixer(nn.Module):
    """Two residual convolutions over the frames of a window, then the frames' embeddings, all together of unit length.

    Args:
        channels: size of a frame's vector.
        embedding: size of a frame's embedding.
    """

    def __init__(self, channels: int, embedding: int):
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.GroupNorm(1, channels), nn.Conv1d(channels, channels, 3, padding=1),
                                                  nn.SiLU(), nn.Dropout(0.1)) for _ in range(2))
        self.out = nn.Conv1d(channels, embedding, 1)

    def forward(self, windows: Tensor) -> Tensor:
        """[B, W, frames, E], of unit length over frames and E together, of vectors [B, W, frames, C]."""
        x = windows.flatten(0, 1).transpose(1, 2)
        for layer in self.layers:
            x = x + layer(x)
        return F.normalize(self.out(x).transpose(1, 2), dim=(1, 2)).unflatten(0, windows.shape[:2])


def centred(x: Tensor, axis: int) -> Tensor:
    """`x` less its mean along an axis."""
    return x - x.mean(axis, keepdim=True)


def block(channels: int, out: int, stride: int = 1, kind: type = nn.Conv2d, size: int = 3) -> nn.Sequential:
    """Convolution, normalisation over groups (no statistics of a batch), activation."""
    return nn.Sequential(kind(channels, out, size, stride, size // 2), nn.GroupNorm(8, out), nn.SiLU())


def contrastive_loss(lips: Tensor, sound: Tensor, scale: Tensor) -> Tensor:
    """InfoNCE over windows of the same clip (hard negatives) and of all clips; embeddings [B, W, E] of consecutive windows.

    Window w of a clip must find its own sound among those of its clip, which no trait of the speaker gives away, and among
    all of the batch, and the other way round; the mean of the four. Windows of the same clip less than three frames away
    are left out: they are neither right nor clearly wrong.
    """
    batch, count = lips.shape[:2]
    logits = scale * lips.flatten(0, 1) @ sound.flatten(0, 1).T
    clip = torch.arange(batch, device=lips.device).repeat_interleave(count)
    time = torch.arange(count, device=lips.device).repeat(batch)
    same, apart = clip[:, None] == clip, (time[:, None] - time).abs()
    everywhere = logits.masked_fill(same & (apart < HARD_SHIFT) & (apart > 0), float("-inf"))
    within = everywhere.masked_fill(~same, float("-inf"))
    target = torch.arange(batch * count, device=lips.device)
    return sum(F.cross_entropy(table, target) for table in (everywhere, everywhere.T, within, within.T)) / 4
