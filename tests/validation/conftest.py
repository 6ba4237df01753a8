"""A recording whose truth is known: what the shipped model renders of the demo photo, driven by the demo speech."""
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from s3dnerf.data.tracking import FaceTracker
from s3dnerf.geometry import orbit
from s3dnerf.media import read_image, read_sound
from s3dnerf.models.hub import load_lip_sync, load_model
from s3dnerf.types import Clip, Portrait
from s3dnerf.validation.scenes import by_lips

ASSETS = Path(__file__).parents[2] / "s3dnerf" / "assets"
FRAMES, FIRST = 12, 22


def coarse_model():
    """The shipped weights with fewer rays."""
    model = load_model()
    model.stride = 8
    return model


@pytest.fixture(scope="session")
def model():
    return coarse_model()


@pytest.fixture(scope="session")
def expert():
    return load_lip_sync()


@pytest.fixture(scope="session")
def portrait():
    found, _, _ = FaceTracker().portrait(read_image(ASSETS / "demo_photo.jpg"))
    return Portrait.stack([found])


@pytest.fixture(scope="session")
def recordings(model, portrait):
    """(person, clip [1, 12]) of two people, the second a darker print of the first; rendered by the honest model."""
    return [("anna", record(model, portrait)),
            ("bert", record(model, replace(portrait, image=portrait.image * torch.tensor([[[0.3]], [[0.5]], [[0.6]]]))))]


@torch.no_grad()
def record(model, portrait):
    sequence = model.features.sequence(torch.from_numpy(read_sound(ASSETS / "demo_speech.wav"))[: 4 * 16000])
    speech = model.features.windows(sequence, FIRST, FRAMES)[None]
    code, own = model.drive(speech).code, model.face_code.own(portrait.mesh)
    mesh = portrait.mesh[:, None].repeat(1, FRAMES, 1, 1)
    mesh[..., :2] += model.face_code.mesh_displacement(code - own[:, None])
    mean_mesh = portrait.mesh.clone()
    mean_mesh[..., :2] -= model.face_code.mesh_displacement(own)
    turn = torch.linspace(0, 0.1, FRAMES)
    cameras = orbit(portrait.cameras[0].map(lambda x: x.expand(FRAMES, *x.shape)), turn, turn * 0).map(lambda x: x[None])
    size = model.image_size
    head = torch.nn.functional.interpolate(portrait.mask, size=(size // 4, size // 4), mode="area")[:, None]
    clip = Clip(frames=torch.zeros(1, FRAMES, 3, size, size), head=head.expand(-1, FRAMES, -1, -1, -1).round(),
                mouth=torch.zeros(1, FRAMES, 1, size, size), cameras=cameras, mesh=mesh, speech=speech, mel=speech,
                mean_mesh=mean_mesh, portrait=portrait, keys=["demo"])
    return replace(clip, frames=model.render(model.encode(portrait), by_lips(model, clip), cameras).image.clamp(0, 1))
