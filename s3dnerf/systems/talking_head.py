"""Training of the talking head on rendered frames."""
from __future__ import annotations

from dataclasses import replace
from typing import Optional

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from s3dnerf.errors import InputError, TrainingError
from s3dnerf.face import LIPS
from s3dnerf.losses import Objective, crop, landmark_pixels, lip_weights, rendering_terms
from s3dnerf.metrics import psnr
from s3dnerf.models.hub import load_lip_sync
from s3dnerf.models.one_shot import S3DNeRF
from s3dnerf.networks.lip_sync import crop_lips, shrink_of
from s3dnerf.networks.patch_discriminator import PatchDiscriminator, feature_distance, hinge_loss
from s3dnerf.systems.base import ModelSystem
from s3dnerf.systems.motion import disturb, landmark_error, opening_probe
from s3dnerf.types import Clip, Motion, Rendering, Window


class TalkingHeadSystem(ModelSystem):
    """Optimises the talking head on windows of rendered frames.

    Every step renders one kind of window: around the mouth, somewhere on the face, or the full frame with fewer rays.
    Without speech (`face_share` of the steps) tracked lips drive the field, which teaches it to render the mouth that
    is seen. With speech the mouth is only nearly the recorded one, and pixels that are compared with it would learn to
    blur: those steps know landmarks and the lip discriminator alone.

    Where `objective.adversarial` or `objective.features` has a weight, a patch discriminator is trained beside the head.

    Args:
        model: the talking head.
        objective: weights of the loss.
        optimizer: see `ModelSystem`.
        scheduler: see `ModelSystem`.
        train_only: see `ModelSystem`.
        init_from: see `ModelSystem`.
        lip_sync: bundle or checkpoint of a trained lip discriminator; needed where `objective.lip_sync` is not 0.
        face_share: share of steps that tracked lips drive.
        lip_windows: share of steps that render a window around the mouth.
        full_frames: share of steps that render the full frame; the rest renders a window anywhere.
        window: side of a window, pixels; a multiple of 4.
        full_stride: pixels per ray in full frames.
        sync_warmup: steps over which the weight of the lip-sync term rises from 0.
        speech_pixels: compare pixels in the steps that speech drives too, as the paper does.
        recompute: keep no inner values of the field for the gradient, but compute them again (gradient checkpointing): less
            memory, more time, the same gradients.
    """

    def __init__(self, model: S3DNeRF, objective: Objective = Objective(), optimizer: OptimizerCallable = torch.optim.Adam,
                 scheduler: Optional[LRSchedulerCallable] = None, train_only: Optional[list[str]] = None,
                 init_from: Optional[dict[str, str]] = None, lip_sync: Optional[str] = None, face_share: float = 0.7,
                 lip_windows: float = 0.6, full_frames: float = 0.2, window: int = 80, full_stride: int = 8,
                 sync_warmup: int = 100, speech_pixels: bool = False, recompute: bool = False):
        super().__init__(model, optimizer, scheduler, train_only, init_from)
        self.save_hyperparameters()
        if face_share < 1 and not (objective.offset or objective.lip_sync or speech_pixels):
            raise InputError(f"found face_share {face_share} with neither objective.offset nor objective.lip_sync; steps "
                             "that speech drives need one of them: give it a weight, or set face_share to 1")
        self.objective, self.face_share = objective, face_share
        self.lip_windows, self.full_frames, self.window, self.full_stride = lip_windows, full_frames, window, full_stride
        self.sync_warmup, self.speech_pixels, model.recompute = sync_warmup, speech_pixels, recompute
        self.expert = load_lip_sync(lip_sync).requires_grad_(False) if objective.lip_sync else None
        self.critic = PatchDiscriminator() if objective.adversarial or objective.features else None

    def training_step(self, clip: Clip, _index: int) -> Tensor:
        self.check_size(clip)
        window, stride, on_lips = self.choose_window(clip)
        by_face = bool(torch.rand(()) < self.face_share)
        appearance = self.model.encode(clip.portrait)
        motion = self.drive(clip, by_face)
        flow = self.model.flow(appearance, motion)
        rendering = self.model.render(appearance, motion, clip.cameras, window, stride, flow)
        terms = rendering_terms(rendering, clip, window, self.objective) if by_face or self.speech_pixels else {}
        if self.objective.wants("offset"):
            terms["offset"] = landmark_error(self.model, appearance, motion, clip, replace(flow, lattice=None))
        if self.objective.wants("deformation"):
            terms["deformation"] = (self.model.deform(appearance, motion).offset ** 2).mean()
        if self.expert is not None and on_lips and not by_face:
            ramp = min(1.0, (self.global_step + 1) / self.sync_warmup)
            terms["lip_sync"] = ramp * self.sync_error(rendering, clip, window)
        if self.critic is not None and (by_face or self.speech_pixels):
            terms |= self.critic_terms(rendering.image, crop(clip.frames, window))
        total = self.objective.total(terms)
        self.log_terms("train", terms | {"total": total}, len(clip.keys))
        return total

    def check_size(self, clip: Clip) -> None:
        """TrainingError for clips of another size than the model's."""
        found, wanted = clip.frames.shape[-1], self.model.image_size
        if found != wanted:
            raise TrainingError(f"found clips of {found} pixels; expected {wanted}, which the model renders: set "
                                f"--data.init_args.size {wanted}, or the model's image_size to {found}")

    def drive(self, clip: Clip, by_face: bool) -> Motion:
        """Motion of a clip from its tracked lips, or from its speech with the eyes still tracked."""
        code = self.model.face_code.driving(clip.mesh, clip.mean_mesh[:, None])
        if by_face:
            return self.model.drive_face(code)
        motion = self.model.drive(disturb(clip.speech) if self.training else clip.speech)
        return Motion(torch.cat([motion.code[..., :-1], code[..., -1:]], -1), motion.tokens)

    def choose_window(self, clip: Clip) -> tuple[Window, int, bool]:
        """A window [B], the pixels per ray in it, and whether it was put around the mouth."""
        size, side = clip.frames.shape[-1], min(self.window, clip.frames.shape[-1])
        kind = torch.rand(()).item()
        batch, device = len(clip.keys), clip.frames.device
        if kind > 1 - self.full_frames or side == size:
            zero = torch.zeros(batch, device=device)
            return Window(zero, zero, size, size), self.full_stride, False
        if kind < self.lip_windows:
            whole = Window(torch.zeros(batch, device=device), torch.zeros(batch, device=device), size, size)
            centre = landmark_pixels(clip.mesh, clip.cameras, whole)[:, :, list(LIPS)].mean((1, 2))
            corner = centre - side / 2 + side * 0.1 * (2 * torch.rand(batch, 2, device=device) - 1)
        else:
            corner = torch.rand(batch, 2, device=device) * (size - side)
        corner = corner.round().clamp(0, size - side)
        return Window(corner[:, 0], corner[:, 1], side, side), self.model.stride, kind < self.lip_windows

    def sync_error(self, rendering: Rendering, clip: Clip, window: Window) -> Tensor:
        """1 - cosine between the rendered lips and the speech, by the frozen expert (S3D-NeRF, lip-sync loss)."""
        lips = crop_lips(rendering.image, landmark_pixels(clip.mesh, clip.cameras, window), shrink_of(self.model.image_size))
        return self.expert.distance(lips, clip.mel)

    def critic_terms(self, made: Tensor, real: Tensor) -> dict[str, Tensor]:
        """What the patch discriminator says of rendered frames [B, T, 3, H, W], and what it learns from them and from the
        recorded ones. Both sides take their step at once: neither term's gradient reaches the other's parameters."""
        made, real = made.flatten(0, 1), real.flatten(0, 1)
        verdict, seen = self.critic.frozen(made)
        truth, wanted = self.critic(real)
        terms = {"adversarial": -verdict.mean(), "features": feature_distance(seen, [x.detach() for x in wanted]),
                 "critic": hinge_loss(truth, self.critic(made.detach())[0])}
        return {name: value for name, value in terms.items() if name == "critic" or self.objective.wants(name)}

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        """Clips the gradients of the head and of the critic each by themselves, so that neither's size shortens the other's
        step."""
        if self.critic is None or not gradient_clip_val or gradient_clip_algorithm == "value":
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        for part in (self.model, self.critic):
            torch.nn.utils.clip_grad_norm_(part.parameters(), gradient_clip_val)

    def on_train_start(self) -> None:
        """TrainingError where the first rendering is all opaque or all empty: it would never recover."""
        model = self.model.eval()
        with torch.no_grad():
            clip = next(iter(self.trainer.train_dataloader)).to(self.device)
            opacity = self.model.render(model.encode(clip.portrait), self.drive(clip, True), clip.cameras, stride=16).opacity
        model.train()
        share = float(opacity.mean())
        self.print(f"mean opacity at the start: {share:.2f}")
        if not 0.02 < share < 0.98:
            raise TrainingError(f"found a mean opacity of {share:.3f} at the start; expected 0.02 to 0.98, without "
                                "which no head is learned: change seed_everything, or begin with trained weights (init_from)")

    def validation_step(self, clip: Clip, _index: int) -> None:
        self.check_size(clip)
        appearance = self.model.encode(clip.portrait)
        size = clip.frames.shape[-1]
        zero = torch.zeros(1, device=clip.frames.device)
        window = Window(zero, zero, size, size)
        lips = landmark_pixels(clip.mesh, clip.cameras, window)[:, :, list(LIPS)]
        box = lip_weights(lips, window, 2.0) - 1
        still = clip.portrait.image[:, None].expand_as(clip.frames)
        terms = {"still_lip_psnr": psnr(still, clip.frames, box)}
        for name, by_face in (("face", True), ("speech", False)):
            motion = self.drive(clip, by_face)
            rendering = self.model.render(appearance, motion, clip.cameras, stride=self.full_stride)
            figures = {"psnr": psnr(rendering.image, clip.frames), "lip_psnr": psnr(rendering.image, clip.frames, box),
                       "warped_lip_psnr": psnr(rendering.warped, clip.frames, box)}
            figures |= opening_probe(self.model, appearance, motion, clip)
            figures |= self.region_figures(rendering, clip)
            terms |= {f"{name}_{key}": value for key, value in figures.items()}
        self.log_terms("val", terms, 1)

    def region_figures(self, rendering: Rendering, clip: Clip) -> dict[str, Tensor]:
        """Overlap of the inside-of-the-mouth map with the inner lips, and mean opacity."""
        label = crop_mean(clip.mouth, rendering.inside.shape[-1])
        both = torch.minimum(rendering.inside, label).sum()
        return {"inside_iou": both / torch.maximum(rendering.inside, label).sum().clamp_min(1e-6),
                "opacity": rendering.opacity.mean()}

    def test_step(self, clip: Clip, _index: int) -> Tensor:
        """Frames [1, T, 3, H, W] of a whole clip, driven by its speech with its own blinks, for `ReportFigures`."""
        appearance, motion = self.model.with_detail(self.model.encode(clip.portrait)), self.drive(clip, False)
        parts = [slice(first, first + 8) for first in range(0, clip.frames.shape[1], 8)]
        return torch.cat([self.model.render(appearance, motion.map(lambda x: x[:, part]), clip.cameras[:, part]).image
                          for part in parts], 1)

    def predict_step(self, clip: Clip, _index: int) -> Rendering:
        return self.model(clip)


def crop_mean(maps: Tensor, size: int) -> Tensor:
    """Maps [B, T, 1, H, H] averaged down to `size`."""
    return torch.nn.functional.adaptive_avg_pool2d(maps.flatten(0, 1), size).unflatten(0, maps.shape[:2])
