"""Training on one person: every term is at work, differences of paper and code are options, training learns."""
import csv
import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from s3dnerf.cli import lightning, main
from s3dnerf.data.person import PersonDataModule
from s3dnerf.models.hub import load_model, save_model
from s3dnerf.models.rad_nerf import RADNeRF
from s3dnerf.systems.person import PersonObjective, PersonSystem, entropy
from s3dnerf.types import PackedColours

TINY = ["--config", "configs/person/rad_nerf.yaml", "--config", "configs/person/tiny.yaml"]


@pytest.fixture(scope="module")
def data(person_shards):
    found = PersonDataModule(person_shards, frames=2, rays=200, patch=16, steps_per_epoch=2)
    found.setup()
    return found


def system(new_person, data, objective=None, **options):
    found = PersonSystem(new_person().train(), PersonObjective(**(objective or {})), code_frames=16, **options)
    found._trainer = SimpleNamespace(datamodule=data, max_steps=10, global_step=0)
    type(found).trainer, type(found).global_step = property(lambda self: self._trainer), property(lambda self: 0)
    found.setup("fit")
    found.noted = {}
    found.log_terms = lambda stage, terms, size: found.noted.update(terms)
    return found


@pytest.fixture(autouse=True)
def plain_properties():
    """Puts Lightning's own properties back."""
    yield
    for name in ("trainer", "global_step"):
        if name in vars(PersonSystem):
            delattr(PersonSystem, name)


def batches(data):
    return list(data.train_dataloader())


def test_the_torso_is_told_its_own_motion_in_some_steps_and_always_where_it_is_shown(new_person, data):
    frame, grids = torch.tensor([3, 20]), {"levels": 3, "channels": 2, "finest": 32, "entries": 2048, "body": True}
    never, always = (system(partial(new_person, torso=grids), data, body_share=share) for share in (0.0, 1.0))
    assert never.condition(frame, True).body is None
    assert torch.equal(always.condition(frame, True).body, data.video.body[frame])
    assert torch.equal(never.eval().condition(frame, True).body, data.video.body[frame])
    always.training_step(batches(data)[1], 0).backward()
    taught = lambda net: any(p.grad is not None and p.grad.any() for p in net.parameters())
    assert taught(always.model.torso.deform_body) and not taught(always.model.torso.deform)


def test_the_kernel_s_ear_is_the_expert_s_and_is_not_taught(new_person, data):
    found = system(partial(new_person, readout="kernel"), data)
    mel = data.video.mel[None]
    assert torch.equal(found.model.eval().ear(mel[0] / 4), found.expert.sound_features(mel)[0])
    assert not any(p.requires_grad for p in found.model.ear.parameters())


def test_a_kernel_is_taught_by_codes_of_frames_that_it_does_not_know(new_person, data):
    model = new_person(readout="kernel")
    model.seen.zero_()
    found, every = system(lambda: model, data), torch.arange(len(data.video.frames))
    told = found.heard[:found.learned], found.lips[:found.learned]
    by_heart = found.model.hear(found.heard, every)
    # the first and last four frames have no neighbours, of which one says silence and the other nothing
    assert torch.allclose(found.hear(every)[found.learned + 4:-4], by_heart[found.learned + 4:-4], atol=1e-5)
    error = lambda read: (read[4:found.learned - 4] - told[1][4:-4]).square().mean()
    assert error(by_heart) < 0.7 * error(found.hear(every))
    assert torch.equal(found.read[:found.learned], model.attention.left_out(*told))


def test_every_part_is_taught(new_person, data):
    (patch, scattered), found = batches(data), system(partial(new_person, readout="convolution"), data)
    total = found.training_step(scattered, 0)
    assert found.noted.keys() == {"colour", "opacity", "entropy", "dynamic", "torso", "code", "correlation", "total", "psnr"}
    (total + found.training_step(patch, 1)).backward()
    assert {"lips", "features"} <= found.noted.keys()
    still = [name for name, p in found.model.named_parameters()
             if p.requires_grad and p.numel() and (p.grad is None or not p.grad.any())]
    assert not still and not any(p.requires_grad for p in found.model.listener.parameters())
    assert all(p.grad is None for p in found.expert.parameters())


@pytest.mark.parametrize("change", [{"dynamic": 1.0}, {"opacity": 1.0}, {"entropy": 0.1}, {"torso": 0.0}, {"entropy_log": "log2"},
                                    {"dynamic_ramp": False}, {"code": 0.0}])
def test_every_weight_counts(new_person, data, change):
    values = []
    for objective in ({}, change):
        torch.manual_seed(0)
        values.append(system(new_person, data, objective).training_step(batches(data)[1], 0).item())
    assert values[0] != values[1]


@pytest.mark.parametrize("change", [{"features": 1.0}, {"lips": 3.0}])
def test_a_patch_is_judged_as_a_picture(new_person, data, change):
    values = []
    for objective in ({}, change):
        torch.manual_seed(0)
        values.append(system(new_person, data, objective).training_step(batches(data)[0], 0).item())
    assert values[1] > values[0]


def test_a_later_stage_begins_with_the_weights_of_the_one_before(new_person, data, tmp_path):
    model = new_person()
    with torch.no_grad():
        model.background.add_(0.1)
        model.gain.fill_(1.3)
    save_model(model, tmp_path)
    found = system(lambda: new_person(), data, init_from={"": str(tmp_path)})
    state = found.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_opacity_is_asked_for_within_the_masks_alone(new_person, data):
    batch, found = batches(data)[1], system(new_person, data)
    rays, mask = batch.pixels.shape[0] * batch.pixels.shape[1], batch.head.flatten(0, 1)
    full, none = torch.ones(rays, 1), torch.zeros(rays, 1)
    head = lambda opacity: PackedColours(none.expand(-1, 3), opacity, none, none)
    term = lambda opacity, torso: found.picture_terms(batch, head(opacity), torso, none.expand(-1, 3))["opacity"]
    outside, person = (1 - mask).mean(), batch.person.flatten(0, 1)
    assert term(mask, full) < outside and torch.isclose(term(full, none), outside)
    beside = ((1 - batch.torso.flatten(0, 1)) * (mask < 0.05)).mean()
    assert torch.isclose(term(none, full), beside) and 0.05 < beside < 0.95
    assert torch.isclose(term(none, none), person.mean()) and 0.05 < person.mean() < 0.95


def test_tracked_lips_or_speech_say_what_is_seen(new_person, data):
    by_lips = system(new_person, data, lips_share=1.0, code_noise=0.0)
    by_speech = system(partial(new_person, readout="convolution"), data, lips_share=0.0)
    frame = torch.tensor([3, 7])
    assert torch.equal(by_lips.condition(frame, True).code, by_lips.lips[frame])
    assert torch.allclose(by_speech.eval().condition(frame, False).code, by_speech.model.hear(by_speech.heard, frame))
    assert by_lips.condition(torch.tensor([3, 39]), True).frame.tolist() == [3, -1]  # held out: no appearance of its own
    by_speech.train().training_step(batches(data)[1], 0).backward()
    assert by_speech.model.attention.convolutions[0].weight.grad.any()


def test_speech_is_read_by_a_linear_map_that_is_found_at_the_start(new_person, data):
    model = new_person()
    model.seen.zero_()
    found = system(lambda: model, data)
    assert found.model.attention.readout.any()
    codes = found.model.attention.frame_codes(found.heard[:found.learned])
    assert (codes - found.lips[:found.learned]).square().mean() < found.lips[:found.learned].var(0).mean()


def test_the_grid_is_updated_while_training(new_person, data):
    found = system(new_person, data)
    before = found.model.grid.density.clone()
    found.training_step(batches(data)[1], 0)
    assert not torch.equal(before, found.model.grid.density) and found.model.grid.noted.any()


def test_entropy_is_least_for_what_is_sure():
    values = torch.tensor([[0.5], [0.1], [0.0], [1.0]])
    assert entropy(values[:1], "ln").item() == pytest.approx(math.log(2)) and entropy(values[:1], "log2").item() == pytest.approx(1)
    assert entropy(values[:1], "ln") > entropy(values[1:2], "ln") > entropy(values[2:], "ln")
    with pytest.raises(ValueError, match="ln or log2"):
        PersonObjective(entropy_log="log10")


def test_features_tell_blur_from_sharpness(new_person, data):
    found = system(new_person, data)
    sharp = torch.rand(2, 3, 32, 32)
    blurred = torch.nn.functional.avg_pool2d(sharp, 3, 1, 1)
    assert found.feature_error(sharp, sharp) == 0 and found.feature_error(blurred, sharp) > 0.001


def test_rates_of_grids_nets_and_attention(new_person, data):
    found = system(new_person, data, optimizer=lambda p: torch.optim.Adam(p, 1e-3), grid_rate=7.0, attention_rate=3.0,
                   scheduler=lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 0.5))
    groups = found.configure_optimizers()["optimizer"].param_groups
    assert sorted(2 * group["lr"] for group in groups) == pytest.approx([1e-3, 3e-3, 7e-3])
    assert sorted(group["initial_lr"] for group in groups) == pytest.approx([1e-3, 3e-3, 7e-3])
    assert sum(len(group["params"]) for group in groups) == sum(p.requires_grad for p in found.model.parameters())


def test_a_person_is_learned_by_the_command_line(person_shards, tmp_path):
    """In 60 steps the head comes closer to the recording than the mean frame's colour."""
    options = ["--data.init_args.shards", person_shards, "--trainer.logger.init_args.save_dir", str(tmp_path),
               "--trainer.max_steps", "60", "--trainer.val_check_interval", "30", "--data.init_args.steps_per_epoch", "60",
               "--data.init_args.rays", "256"]
    assert main(["fit", *TINY, *options]) == 0
    with (tmp_path / "rad_nerf" / "version_0" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file)]
    learned = [float(row["train/psnr"]) for row in rows if row["train/psnr"]]
    assert sum(learned[-10:]) / 10 > sum(learned[:5]) / 5 + 2
    assert {"val/head_psnr", "val/lips_mouth_psnr", "val/opening_correlation"} <= rows[0].keys()
    assert isinstance(load_model(tmp_path / "rad_nerf" / "version_0" / "checkpoints" / "best.ckpt"), RADNeRF)


def test_the_paper_s_preset_has_its_sizes():
    found = lightning(["--config", "configs/person/rad_nerf.yaml", "--config", "configs/person/rad_nerf_paper.yaml"], run=False)
    model, count = found.model.model, lambda part: sum(p.numel() for p in part.parameters())
    assert (count(model.field.space), count(model.field.speech), count(model.torso.grid)) == (1_806_960, 1_111_040, 1_111_040)
    assert not model.by_lips and found.model.lips_share == 0
