"""A face that speaks: the demo portrait, 128 pixels, whose lower lip is moved by a smooth field."""
from importlib.resources import files
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

FRAMES = 12


@pytest.fixture(scope="session")
def portrait():
    """The portrait [128, 128, 3] uint8 and its landmarks [478, 2]."""
    from s3dnerf.data.tracking import FaceTracker
    from s3dnerf.geometry import project

    with Image.open(files("s3dnerf") / "assets" / "demo_photo.jpg") as image:
        found = FaceTracker().portrait(np.asarray(image.convert("RGB")), 128)[0]
    points = project(found.mesh[None], found.cameras[None])[0][0].numpy()
    return (found.image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8), points


@pytest.fixture(scope="session")
def recording(portrait):
    """Footage of the portrait with a mouth that opens and closes and a slow nod, as the tracker sees it, with sound."""
    from s3dnerf.evaluation.footage import look

    frames = speaking(*portrait)
    return look("clip", lambda: iter(frames), tone(FRAMES))


def speaking(image, points):
    import cv2

    y, x = np.mgrid[:128, :128].astype(np.float32)
    middle = points[17]
    near = np.exp(-((x - middle[0]) ** 2 + (y - middle[1]) ** 2) / (2 * 9.0 ** 2)) * (y > points[13, 1])
    frames = []
    for time in range(FRAMES):
        gap, nod = 5 * np.sin(time * 1.3) ** 2, 1.5 * np.sin(time / 3)
        frames.append(cv2.remap(image, x, (y - gap * near - nod).astype(np.float32), cv2.INTER_LINEAR,
                                borderMode=cv2.BORDER_REPLICATE))
    return np.stack(frames)


def tone(frames):
    """Sound of so many frames."""
    time = np.arange(frames * 640) / 16000
    return (0.3 * np.sin(2 * np.pi * 200 * time) * np.sin(2 * np.pi * 3 * time)).astype(np.float32)


@pytest.fixture(scope="session")
def reorder():
    """Footage of the frames of another, in another order, without looking again."""
    from dataclasses import replace

    def make(footage, order, change=lambda frame: frame, **other):
        frames = list(footage.frames())
        return replace(footage, frames=lambda: (change(frames[i]) for i in order), landmarks=footage.landmarks[list(order)], **other)

    return make


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Files with random weights of the real classes, as users have them."""
    import torchvision

    from s3dnerf.evaluation.inception import FIDInception
    from s3dnerf.evaluation.syncnet import SyncNet

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    names = ("alexnet.pth", "inception.pth", "syncnet.model", "arcface.pt")
    files = SimpleNamespace(**{name.split(".")[0]: str(folder / name) for name in names})
    alexnet = torchvision.models.alexnet(num_classes=1).features
    torch.save({f"features.{name}": value for name, value in alexnet.state_dict().items()}, files.alexnet)
    inception = FIDInception()
    for parameter in inception.parameters():
        if parameter.ndim > 1:  # so that the pictures are told apart at its end
            torch.nn.init.kaiming_normal_(parameter)
    torch.save(inception.state_dict(), files.inception)
    torch.save(SyncNet().state_dict(), files.syncnet)
    face = torch.nn.Sequential(torch.nn.AvgPool2d(16), torch.nn.Flatten(), torch.nn.Linear(147, 16))
    torch.jit.script(face).save(files.arcface)
    return files
