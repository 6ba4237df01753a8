"""Presets and ablations: each says what it promises, and really changes the model or the loss."""
import inspect
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from s3dnerf.cli import lightning, main
from s3dnerf.face import metric_face
from s3dnerf.geometry import frontal_camera
from s3dnerf.models.hub import DEFAULT, find_weights
from s3dnerf.models.one_shot import S3DNeRF
from s3dnerf.types import Cameras, Portrait

CONFIGS = Path(__file__).parents[1] / "configs"
ABLATIONS = sorted(path.stem for path in (CONFIGS / "ablations").glob("*.yaml"))
SIZE, FRAMES = 64, 2
SMALL = ["--model.init_args.model.init_args.image_size", str(SIZE)]
FEW = [*SMALL, *(word for name in ("coarse_samples", "fine_samples")
                 for word in (f"--model.init_args.model.init_args.{name}", "4"))]


def system(*overlays, options=(), experiment="one_shot"):
    """What the command line would train."""
    words = [word for name in (experiment, *overlays) for word in ("--config", str(CONFIGS / f"{name}.yaml"))]
    torch.manual_seed(0)
    return lightning([*words, *options], run=False).model


def ablation(name):
    """The system of an ablation, in which what starts near zero matters."""
    own = () if name == "full" else (f"ablations/{name}",)
    found = system("overlays/tiny", "ablations/full", *own, options=SMALL)
    model = found.model.eval()
    torch.manual_seed(1)
    with torch.no_grad():
        model.deformation.out.weight.normal_(std=0.3)
        model.radiance.features.weight.mul_(5)
        model.speech.code[-1].weight.mul_(10)
        if model.super_resolution is not None:
            model.super_resolution.leave.weight.normal_(std=0.05)
    return found


def portrait(seed=2):
    torch.manual_seed(seed)
    camera = frontal_camera(SIZE)
    image = torch.nn.functional.interpolate(torch.rand(1, 3, 8, 8), size=SIZE, mode="bicubic").clamp(0, 1)
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[..., 8:52, 12:52] = 1
    return Portrait(image, mask, Cameras(camera.camera_to_world[None], camera.intrinsics[None]),
                    torch.from_numpy(metric_face())[None], torch.ones(1, 1, SIZE, SIZE))


def speech(model, seed=3):
    torch.manual_seed(seed)
    return model.drive(2 * torch.randn(1, FRAMES, 80, 40))


@torch.no_grad()
def render(model, drive=None):
    camera = frontal_camera(SIZE)
    cameras = Cameras(camera.camera_to_world.expand(1, FRAMES, 4, 4), camera.intrinsics.expand(1, FRAMES, 3, 3))
    return model.render(model.encode(portrait()), drive or speech(model), cameras)


def moved(model, drive=None, photo=None):
    """The learned deformation on the lattice."""
    with torch.no_grad():
        return model.deform(model.encode(photo or portrait()), drive or speech(model))


def hears(model):
    """By how much another speech changes the frames."""
    return (render(model).image - render(model, speech(model, 5)).image).abs().mean().item()


@pytest.fixture(scope="module")
def full():
    return ablation("full")


# presets -------------------------------------------------------------------------------------------------------------

def arguments(name):
    return yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["model"]["init_args"]["model"]["init_args"]


def test_base_states_every_argument_and_is_the_default_and_the_shipped_size():
    plain = lambda value: list(value) if isinstance(value, tuple) else value
    defaults = {name: plain(parameter.default) for name, parameter in inspect.signature(S3DNeRF).parameters.items()}
    assert arguments("overlays/base") == defaults
    shipped = yaml.safe_load((find_weights(DEFAULT) / "config.yaml").read_text())["arguments"]
    assert {name: value for name, value in shipped.items() if defaults[name] != value}.keys() <= {"mouth_gain"}


@pytest.mark.parametrize("name, millions", [("tiny", (0.4, 0.7)), ("base", (0.9, 1.3)), ("paper", (26, 33))])
def test_presets_are_built_by_the_command_line_at_their_size(name, millions):
    model = system(f"overlays/{name}").model
    assert millions[0] < sum(p.numel() for p in model.parameters()) / 1e6 < millions[1]
    assert all(list(model.arguments[key]) == value if isinstance(value, list) else model.arguments[key] == value
               for key, value in arguments(f"overlays/{name}").items())


@pytest.mark.parametrize("name", ["tiny", "base"])
def test_our_presets_are_taught_on_landmarks_too(name):
    alike = [system(f"overlays/{name}", experiment=experiment).model.arguments for experiment in ("motion", "one_shot")]
    assert alike[0] == alike[1]


def test_the_paper_s_model_has_its_planes_and_nothing_of_ours():
    found = system("overlays/paper", options=FEW)
    model = found.model.eval()
    assert [plane.shape[-1] for plane in model.encode(portrait()).planes] == [SIZE // 2, SIZE // 4, SIZE // 8, SIZE // 16]
    assert not list(model.mesh_motion.parameters()) and moved(model).modulation.abs().max() == 0
    with torch.no_grad():
        rendering, flow = render(model), model.flow(model.encode(portrait()), speech(model))
    assert rendering.image.isfinite().all() and rendering.inside.abs().max() == 0 and flow.lattice is None
    weights = found.objective
    assert (weights.squared, weights.adversarial, weights.lip_sync, weights.deformation) == (1.0, 1.0, 0.5, 0.001)
    assert not any(getattr(weights, name) for name in ("photometric", "edges", "raw", "warped", "flow", "depth", "offset"))


def test_without_the_warp_frames_start_from_the_rendered_colour():
    model = system("overlays/tiny", options=SMALL).model.eval()
    warped = render(model).warped
    model.warp = False
    with torch.no_grad():
        plain = render(model)
        model.radiance.out.bias[1:4] += 3.0
        brighter = render(model)
    assert (plain.warped - warped).abs().mean() > 1e-2
    assert (brighter.warped - plain.warped).mean() > 0.05  # a looked-up photo knows no colour but its own
    assert torch.allclose(plain.warped[..., ::SIZE - 1, :], portrait().image[:, None, :, ::SIZE - 1], atol=0.02)


def test_the_paper_s_preset_trains_on_pixels_that_speech_drives(shards, tmp_path, capfd):
    import csv
    words = [word for name in ("one_shot", "overlays/paper", "overlays/smoke")
             for word in ("--config", str(CONFIGS / f"{name}.yaml"))]
    for name, value in {"data.init_args.size": SIZE, "data.init_args.train": shards, "data.init_args.val": shards,
                        "data.init_args.batch_size": 1, "trainer.logger.init_args.save_dir": tmp_path, "trainer.max_steps": 2,
                        "trainer.limit_val_batches": 0, "trainer.callbacks": [], "best.monitor": "null",
                        "model.init_args.window": 32, "model.init_args.lip_windows": 1,
                        "model.init_args.full_frames": 0}.items():
        words += [f"--{name}", str(value)]
    assert main(["fit", *words, *FEW]) == 0
    with next(tmp_path.rglob("metrics.csv")).open() as file:
        terms = {name for row in csv.DictReader(file) for name, value in row.items() if value and name.startswith("train/")}
    assert terms == {f"train/{name}" for name in ("squared", "lip_sync", "deformation", "adversarial", "critic", "total")}


# ablations -----------------------------------------------------------------------------------------------------------

def test_every_ablation_is_trained_by_the_script(load_script):
    assert sorted(load_script("ablations").VARIANTS) == ABLATIONS


@pytest.mark.parametrize("name", [name for name in ABLATIONS if name != "full"])
def test_every_ablation_changes_the_frames_or_the_loss(name, full):
    other = ablation(name)
    fits = {key: value for key, value in full.model.state_dict().items()
            if key in (own := other.model.state_dict()) and own[key].shape == value.shape}
    other.model.load_state_dict(fits, strict=False)
    change = (render(full.model).image - render(other.model).image).abs().mean()
    assert (change > 1e-5) != (name == "no_lip_sync")
    assert (full.objective != other.objective) == (name in ("no_lip_sync", "concatenation", "naive_deformation"))


def test_the_full_one_moves_modulates_hears_and_is_judged(full):
    found = moved(full.model)
    assert min(found.offset.abs().max(), found.modulation.abs().max(), found.region.std()) > 1e-3
    assert hears(full.model) > 1e-4
    assert full.objective.lip_sync > 0 and full.expert is not None
    assert not list(full.model.mesh_motion.parameters())


def test_no_deformation_is_deaf():
    model = ablation("no_deformation").model
    found = moved(model)
    assert not any(values.abs().max() for values in (found.offset, found.modulation, found.region)) and hears(model) == 0


def test_naive_deformation_sees_no_photo_and_attends_to_nothing(full):
    model, drive = ablation("naive_deformation").model, speech(full.model)
    another = replace(portrait(7), mesh=portrait().mesh * torch.tensor([1.0, 1.1, 1.0]))
    seen = lambda m: (moved(m, drive).offset - moved(m, drive, another).offset).abs().max().item()
    assert seen(model) == 0 and seen(full.model) > 1e-4 and seen(ablation("concatenation").model) > 1e-4
    assert hears(model) > 1e-4 and moved(model).region.max() == 1


def test_concatenation_attends_to_nothing(full):
    def used(model):
        model.zero_grad()
        model.deform(model.encode(portrait()), speech(model)).offset.square().sum().backward()
        field = model.deformation
        return [x.grad is not None and bool(x.grad.abs().max() > 0) for x in (field.keys.weight, field.null, field.query.weight)]

    assert used(ablation("full").model) == [True, True, True]
    assert used(ablation("concatenation").model) == [False, False, True]


def test_no_lip_sync_has_no_expert():
    found = ablation("no_lip_sync")
    assert found.objective.lip_sync == 0 and found.expert is None


@pytest.mark.parametrize("name, moves, modulates", [("modulation_only", False, True), ("deformation_only", True, False)])
def test_one_half_of_the_field(name, moves, modulates):
    found = moved(ablation(name).model)
    assert bool(found.offset.abs().max()) == moves and bool(found.modulation.abs().max()) == modulates


def test_single_scale_has_one_plane_and_as_many_features_at_a_point(full):
    one, four = ablation("single_scale").model, full.model
    planes = [model.encode(portrait()).planes for model in (one, four)]
    assert [len(found) for found in planes] == [1, 4] and planes[0][0].shape[-1] == planes[1][0].shape[-1]
    assert one.radiance.features.in_features == four.radiance.features.in_features


def test_no_importance_looks_evenly_and_as_often(full):
    other = ablation("no_importance").model
    asked = {}
    for name, model in (("full", full.model), ("even", other)):
        inner, points = model.renderer.forward, []

        def look(rays, field, inner=inner, points=points):
            def spied(places):
                points.append((places - rays.origins[..., None, :]).norm(dim=-1))
                return field(places)
            return inner(rays, spied)

        model.renderer.forward = look
        render(model)
        model.renderer.forward = inner
        asked[name] = torch.cat(points, -1).sort(-1).values
    steps = {name: distances.diff(dim=-1) for name, distances in asked.items()}
    assert asked["full"].shape == asked["even"].shape
    assert torch.allclose(steps["even"], steps["even"].mean(-1, keepdim=True).expand_as(steps["even"]), rtol=1e-3)
    assert (steps["full"].amax(-1) > 1.5 * steps["full"].amin(-1)).all()


def test_no_super_resolution_shows_the_looked_up_photo(full):
    model = ablation("no_super_resolution").model
    found = render(model)
    assert model.super_resolution is None and torch.equal(found.image, found.warped)
    assert not torch.equal(render(full.model).image, render(full.model).warped)


def test_landmarks_carry_the_face_where_they_are_asked_to():
    carried = {}
    for name in ("landmarks", "full"):
        model = ablation(name).model
        with torch.no_grad():
            model.deformation.out.weight.zero_()
            model.deformation.out.bias.zero_()
            appearance, drive = model.encode(portrait()), speech(model)
            points = portrait().mesh[:, None, :468].expand(-1, FRAMES, -1, -1)
            found, inside = model.displace(appearance, drive, model.flow(appearance, drive), points)
        carried[name] = found.offset.abs().max().item(), inside.max().item()
    assert carried["full"] == (0, 0) and min(carried["landmarks"]) > 1e-3


@pytest.mark.parametrize("path", [path for path in sorted(CONFIGS.rglob("*.yaml")) if path.stem != "smoke"],
                         ids=lambda path: str(path.relative_to(CONFIGS)))
def test_a_loader_works_beside_the_model(path):
    """In the process itself a model of the tiny preset waits for a sixth of the time; the smoke test alone saves the start."""
    content = yaml.safe_load(path.read_text())
    data = content.get("data", {}) if isinstance(content, dict) else {}
    assert data.get("init_args", {}).get("workers", 1) > 0
