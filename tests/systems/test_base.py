"""What all systems share: random states, figures over all clips, clipping, half precision."""
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from s3dnerf.data.module import ClipDataModule
from s3dnerf.losses import Objective
from s3dnerf.models.one_shot import S3DNeRF
from s3dnerf.systems import TalkingHeadSystem
from s3dnerf.systems import base
from s3dnerf.systems.base import ModelSystem


class Slope(nn.Module):
    arguments: dict = {}

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(1.0))


class NoiseSystem(ModelSystem):
    """Draws a number in every batch, and has figures of some clips."""

    def __init__(self):
        super().__init__(Slope(), lambda parameters: torch.optim.SGD(parameters, 0.1), None, None, None)
        self.noise = []

    def training_step(self, batch, _index):
        self.noise.append(torch.rand(()).item())
        return self.model.slope * batch.mean()

    def validation_step(self, batch, index):
        self.log_terms("val", {"all": batch.mean()} | ({"first": batch.mean()} if index == 0 else {}), 1)


def trainer(**options):
    settings = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
                    accelerator="cpu", max_epochs=2, num_sanity_val_steps=0)
    return pl.Trainer(**(settings | options))


def loader(count):
    return torch.utils.data.DataLoader(torch.arange(float(count)), batch_size=1)


@pytest.mark.parametrize("accumulated", [1, 2])
def test_every_batch_has_a_random_state_of_its_own(accumulated):
    runs = []
    for _ in range(2):
        pl.seed_everything(4)
        system = NoiseSystem()
        trainer(accumulate_grad_batches=accumulated).fit(system, loader(4))
        runs.append(system.noise)
    assert runs[0] == runs[1] and len(set(runs[0])) == len(runs[0]) == 8


def test_figures_are_means_over_the_clips_that_have_them():
    run = trainer(max_epochs=1)
    run.fit(NoiseSystem(), loader(1), loader(5))
    assert run.callback_metrics["val/all"] == 2 and run.callback_metrics["val/first"] == 0


@pytest.mark.parametrize("clips, processes", [(5, 2), (1, 3), (6, 3), (0, 2)])
def test_values_of_all_processes_come_in_the_order_of_the_clips(clips, processes, monkeypatch):
    shares = [list(range(rank, clips, processes)) for rank in range(processes)]

    def gather(found, own):
        assert own == shares[1]
        found[:] = shares

    monkeypatch.setattr("s3dnerf.processes.processes", lambda: processes)
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    assert NoiseSystem().gathered(shares[1]) == list(range(clips))


@pytest.mark.parametrize("clips, processes", [(5, 2), (1, 3), (4, 4)])
def test_processes_share_the_validation_clips_among_them(clips, processes, shards):
    seen = []
    for rank in range(processes):
        data = ClipDataModule(val=str(shards), val_clips=clips, val_frames=1, images="none", workers=0)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=processes)
        share = data.val_dataloader()
        seen.append([key for clip in share for key in clip.keys])
        assert len(share) == max(1, len(seen[-1])), "a process without a clip takes part all the same"
    alone = [clip.keys[0] for clip in ClipDataModule(val=str(shards), val_clips=clips, images="none", workers=0).val_dataloader()]
    assert sorted(key for keys in seen for key in keys) == sorted(alone) and len(set(alone)) == min(clips, 4)


def small_system(**options):
    model = S3DNeRF(image_size=64, encoder_channels=(8, 8), plane_channels=4, width=16, modulation_channels=6, lattice=(8, 8, 4),
                    token_channels=8, speech_width=16, coarse_samples=4, fine_samples=4, feature_channels=6,
                    super_resolution_channels=(8, 8))
    return TalkingHeadSystem(model, Objective(adversarial=0.1, features=0.1), **options)


def test_the_critic_s_gradients_do_not_shorten_the_head_s_step():
    system = small_system()
    for part, size in ((system.model, 0.5), (system.critic, 1e6)):
        parameters = list(part.parameters())
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        parameters[0].grad.view(-1)[0] = size
    system.configure_gradient_clipping(None, 1.0, "norm")
    norms = [torch.stack([parameter.grad.norm() for parameter in part.parameters()]).norm().item()
             for part in (system.model, system.critic)]
    assert norms == pytest.approx([0.5, 1.0], rel=1e-4)


def test_the_adversarial_stage_trains_in_half_precision_accumulated_and_clipped(shards):
    system = small_system(window=32, optimizer=lambda parameters: torch.optim.SGD(parameters, 0.1))
    before = {name: value.clone() for name, value in system.state_dict().items()}
    data = ClipDataModule(str(shards), frames=2, batch_size=1, steps_per_epoch=4, workers=0)
    run = trainer(max_epochs=1, precision="bf16-mixed", accumulate_grad_batches=2, gradient_clip_val=0.01)
    run.fit(system, data)
    assert run.global_step == 2
    for part in ("model.", "critic."):
        moved = torch.stack([(value - before[name]).norm() for name, value in system.named_parameters()
                             if name.startswith(part)]).norm().item()
        assert 0.0001 < moved <= 2 * 0.1 * 0.01 * 1.01, "two steps of a clipped gradient"
    assert all(value.dtype == torch.float32 for value in system.parameters())
