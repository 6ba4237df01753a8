"""The lip-sync discriminator: do these lips go with this sound?"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s3dnerf.errors import InputError
from s3dnerf.face import EYE_CORNERS, LIPS
from s3dnerf.media import FPS, MEL_BINS, MEL_HOP, SAMPLE_RATE

LIP_SIZE = (48, 96)
"""height and width of the crop that the discriminator sees"""
LIP_EXTENT = 1.1
"""width of the crop in head units (outer eye corners are 1 apart): cheek to cheek, nose to chin"""
SYNC_FRAMES = 5
MEL_PER_FRAME = SAMPLE_RATE / MEL_HOP / FPS
HARD_SHIFT = 3
"""frames from which on a sound counts as out of step with the lips"""


def crop_lips(images: Tensor, landmarks: Tensor) -> Tensor:
    """Crops [B, T, 3, 48, 96] of the mouth from images [B, T, 3, H, W], given landmarks [B, T, 478, 2] in their pixels.

    The box is the same for all T frames: it is centred on the mean of the lips and sized by the eye distance, so that it
    tells nothing about how the mouth moves. Large images are averaged down first, so that nothing is skipped.
    Differentiable with respect to the images.
    """
    first, last = EYE_CORNERS
    centre = landmarks[:, :, list(LIPS)].mean((1, 2))
    eyes = (landmarks[:, :, first] - landmarks[:, :, last]).norm(dim=-1).mean(1)
    half = torch.stack([eyes, eyes * LIP_SIZE[0] / LIP_SIZE[1]], -1) * (LIP_EXTENT / 2)
    shrink = max(1, round(2 * float(half[:, 0].min()) / LIP_SIZE[1]))
    pictures = F.avg_pool2d(images.flatten(0, 1), shrink) if shrink > 1 else images.flatten(0, 1)
    size = centre.new_tensor(pictures.shape[:-3:-1]) * shrink
    y, x = ((torch.arange(count, device=images.device) + 0.5) * 2 / count - 1 for count in LIP_SIZE)
    unit = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)
    places = (centre[:, None, None] + unit * half[:, None, None]) * (2 / size) - 1
    crops = F.grid_sample(pictures, places.repeat_interleave(images.shape[1], 0), padding_mode="border", align_corners=False)
    return crops.unflatten(0, images.shape[:2])


class LipSyncDiscriminator(nn.Module):
    """Two convolutional branches, lips and sound, that meet in one space (SyncNet; Chung and Zisserman 2016).

    Args:
        width: channels of the first layers are twice, those of the last 16 times this.
        embedding: size of the embeddings.
        frames: consecutive video frames that are judged at once; odd, so that there is a middle one, and 3 to 11.

    Raises:
        InputError: for another number of frames.
    """

    def __init__(self, width: int = 8, embedding: int = 128, frames: int = SYNC_FRAMES):
        super().__init__()
        if frames not in range(3, 12, 2):
            raise InputError(f"found frames={frames} for the lip-sync discriminator; expected 3, 5, 7, 9 or 11")
        self.arguments = {"width": width, "embedding": embedding, "frames": frames}
        self.frames = frames
        w = width
        self.lips = nn.Sequential(block(3 * frames, 2 * w, 2), block(2 * w, 4 * w, 2), block(4 * w, 8 * w, 2),
                                  block(8 * w, 8 * w, 1), block(8 * w, 16 * w, 2), nn.Flatten(), nn.Dropout(0.2),
                                  nn.Linear(16 * w * 3 * 6, embedding))
        columns = mel_columns(frames)
        self.sound = nn.Sequential(block(MEL_BINS, 16 * w, 1, nn.Conv1d), block(16 * w, 16 * w, 2, nn.Conv1d),
                                   block(16 * w, 16 * w, 2, nn.Conv1d), nn.Flatten(), nn.Dropout(0.2),
                                   nn.Linear(16 * w * -(-columns // 4), embedding))
        self.temperature = nn.Parameter(torch.tensor(2.3))

    def lip_features(self, lips: Tensor) -> Tensor:
        """[N, E] of consecutive crops [N, frames, 3, 48, 96]: their embedding before it is brought to unit length."""
        return self.lips(lips.flatten(1, 2) * 2 - 1)

    def embed_lips(self, lips: Tensor) -> Tensor:
        """Unit vectors [N, E] of consecutive crops [N, frames, 3, 48, 96]."""
        return F.normalize(self.lip_features(lips), dim=-1)

    def embed_sound(self, mel: Tensor) -> Tensor:
        """Unit vectors [N, E] of the mel columns [N, 80, M] of the same time; see `mel_columns`."""
        return F.normalize(self.sound(mel / 4), dim=-1)

    def forward(self, lips: Tensor, mel: Tensor) -> Tensor:
        """Cosine [N] between lips [N, frames, 3, 48, 96] and mel [N, 80, M]."""
        return (self.embed_lips(lips) * self.embed_sound(mel)).sum(-1)

    def windows(self, lips: Tensor, mel_windows: Tensor) -> tuple[Tensor, Tensor]:
        """`sync_windows` of as many frames as this discriminator judges."""
        return sync_windows(lips, mel_windows, self.frames)

    def distance(self, lips: Tensor, mel_windows: Tensor) -> Tensor:
        """Mean of 1 - cosine over all windows of crops [B, T, 3, 48, 96], T consecutive frames, with the mel windows
        [B, T, 80, 40] of those frames. InputError if T is less than the discriminator's frames."""
        return (1 - self(*self.windows(lips, mel_windows))).mean()


def mel_columns(frames: int) -> int:
    """Mel columns that last as long as so many video frames, to the nearest even number: 16 for 5."""
    return 2 * round(frames * MEL_PER_FRAME / 2)


def sync_windows(lips: Tensor, mel_windows: Tensor, frames: int = SYNC_FRAMES) -> tuple[Tensor, Tensor]:
    """All stretches of consecutive crops [B * W, frames, 3, 48, 96] of [B, T, 3, 48, 96], and the sound of each,
    [B * W, 80, M].

    W = T - frames + 1; the sound is the middle of the mel window of the middle frame. InputError if T < frames.
    """
    count = lips.shape[1] - frames + 1
    if count < 1:
        raise InputError(f"found {lips.shape[1]} frames; the lip-sync discriminator needs {frames} consecutive ones or more")
    stacked = torch.stack([lips[:, k:k + frames] for k in range(count)], 1)
    sound = central_mel(mel_windows[:, frames // 2:frames // 2 + count], mel_columns(frames))
    return stacked.flatten(0, 1), sound.flatten(0, 1)


def central_mel(mel_windows: Tensor, columns: int = 16) -> Tensor:
    """The middle columns [*, 80, columns] of mel windows [*, 80, W]."""
    start = (mel_windows.shape[-1] - columns) // 2
    return mel_windows[..., start:start + columns]


def block(channels: int, out: int, stride: int, kind: type = nn.Conv2d) -> nn.Sequential:
    """Convolution of size 3, normalisation over groups (no statistics of a batch), activation."""
    return nn.Sequential(kind(channels, out, 3, stride, 1), nn.GroupNorm(min(8, out // 2), out), nn.SiLU())


def contrastive_loss(lips: Tensor, sound: Tensor, scale: Tensor, spacing: int = 1) -> Tensor:
    """InfoNCE over windows of the same clip (hard negatives) and of all clips; embeddings [B, W, E].

    Window w of a clip must find its own sound among those of its clip, which no trait of the speaker gives away, and among
    all of the batch, and the other way round; the mean of the four. Windows of the same clip less than three frames away
    are left out: they are neither right nor clearly wrong. `spacing` is the number of frames between neighbouring windows.
    """
    batch, count = lips.shape[:2]
    logits = scale * lips.flatten(0, 1) @ sound.flatten(0, 1).T
    clip = torch.arange(batch, device=lips.device).repeat_interleave(count)
    time = torch.arange(count, device=lips.device).repeat(batch) * spacing
    same, apart = clip[:, None] == clip, (time[:, None] - time).abs()
    everywhere = logits.masked_fill(same & (apart < HARD_SHIFT) & (apart > 0), float("-inf"))
    within = everywhere.masked_fill(~same, float("-inf"))
    target = torch.arange(batch * count, device=lips.device)
    return sum(F.cross_entropy(table, target) for table in (everywhere, everywhere.T, within, within.T)) / 4
