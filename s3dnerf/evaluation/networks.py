"""The networks that judge, from files of the user's: one that is missing is reported as missing, never made up."""
from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import torch
from torch import nn

from s3dnerf.digest import file_digest
from s3dnerf.errors import CheckpointError, InputError
from s3dnerf.evaluation.arcface import ArcFace
from s3dnerf.evaluation.syncnet import SyncNet
from s3dnerf.media import check_file
from s3dnerf.models.hub import find_weights, load_lip_sync
from s3dnerf.networks.lip_sync import LipSyncDiscriminator

CACHED = {"alexnet": ("alexnet-owt-*.pth",),
          "inception": ("pt_inception-2015-12-05-*.pth", "weights-inception-2015-12-05-*.pth"),
          "arcface": (), "syncnet": ("syncnet_v2.model",)}
"""where a network is found without being named: in torch's cache, under these names"""
WHAT = {"alexnet": "AlexNet's ImageNet weights (torchvision's alexnet-owt-7be5be79.pth)",
        "inception": "FID's Inception weights (pt_inception-2015-12-05-6726825d.pth)",
        "arcface": "an ArcFace network (.onnx or TorchScript)", "syncnet": "SyncNet v2's weights (syncnet_v2.model)"}


@dataclass(frozen=True)
class Networks:
    """What judges, and why the rest does not."""

    alexnet: Optional[nn.Module] = None
    """LPIPS, of images in [-1, 1]"""
    inception: Optional[nn.Module] = None
    """features [N, 2048] of images in [0, 1]"""
    arcface: Optional[ArcFace] = None
    syncnet: Optional[SyncNet] = None
    judge: Optional[LipSyncDiscriminator] = None
    missing: dict[str, str] = field(default_factory=dict)
    """why, by name"""
    about: dict[str, dict] = field(default_factory=dict)
    """file and sha256 of those that are there"""
    device: str = "cpu"

    @classmethod
    def load(cls, alexnet: Optional[str] = None, inception: Optional[str] = None, arcface: Optional[str] = None,
             syncnet: Optional[str] = None, judge: str = "lip-judge", device: str = "cpu") -> "Networks":
        """From files; what is not named is looked for in torch's cache, and `judge` "none" does without.

        InputError for a file that does not exist and for a GPU that does not, CheckpointError for a file that holds something else.
        """
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise InputError("found no CUDA device; use --device cpu")
        builders = {"alexnet": load_lpips, "inception": _inception, "syncnet": _syncnet}
        found, missing, about = {}, {}, {}
        for name, file in (("alexnet", alexnet), ("inception", inception), ("arcface", arcface), ("syncnet", syncnet)):
            path = find(name, file)
            if path is None:
                cache = " or put them into torch's cache" if CACHED[name] else ""
                missing[name] = f"needs {WHAT[name]}: name the file with --{name}{cache}"
                continue
            found[name] = ArcFace(path, device) if name == "arcface" else builders[name](path).eval().to(device)
            about[name] = {"file": path.name, "sha256": file_digest(path)[:16]}
        if judge == "none":
            missing["judge"] = "needs a lip discriminator that judges: name one with --judge, such as lip-judge"
        else:
            found["judge"] = load_lip_sync(judge).to(device)
            path = find_weights(judge, "lip_sync", "lip_sync")
            about["judge"] = {"file": judge, "sha256": file_digest(path if path.is_file() else path / "lip_sync.safetensors")[:16]}
        return cls(**found, missing=missing, about=about, device=device)


def find(name: str, file: Optional[str]) -> Optional[Path]:
    """The file of a network: the one that was named, or one in torch's cache; None without either."""
    if file is not None:
        return check_file(file, f"file for --{name}")
    cache = Path(torch.hub.get_dir(), "checkpoints")
    return next((path for pattern in CACHED[name] for path in sorted(cache.glob(pattern))), None)


def _state(path: Path, name: str) -> dict:
    """The tensors of a file of weights."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types
        raise CheckpointError(f"{path} is no file of weights ({type(error).__name__}); expected {WHAT[name]}") from None
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise CheckpointError(f"{path} holds no table of tensors; expected {WHAT[name]}")
    return content


def _filled(network: nn.Module, state: dict, path: Path, name: str) -> nn.Module:
    """A network with the weights of a file, all of them."""
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit ({str(error).splitlines()[1].strip()[:100]}); expected {WHAT[name]}") \
            from None
    return network


def load_lpips(path: Path) -> nn.Module:
    """LPIPS (Zhang et al. 2018) on the AlexNet of a file, for images in [-1, 1]; its linear layers come with the package.
    CheckpointError for another file."""
    from lpips import LPIPS

    network = LPIPS(net="alex", pnet_rand=True, verbose=False)
    state = {key.removeprefix("features."): value for key, value in _state(path, "alexnet").items()}
    parts = {f"{slice_}.{key}": key for slice_, part in network.net.named_children() for key in part.state_dict()}
    _filled(network.net, {whole: state[key] for whole, key in parts.items() if key in state}, path, "alexnet")
    return network.eval()


def _inception(path: Path) -> nn.Module:
    from s3dnerf.evaluation.inception import FIDInception

    kept = lambda name: not name.startswith(("fc.", "AuxLogits."))
    state = {name: value for name, value in _state(path, "inception").items() if kept(name)}
    return _filled(FIDInception(), state, path, "inception")


def _syncnet(path: Path) -> nn.Module:
    return _filled(SyncNet(), _state(path, "syncnet"), path, "syncnet")
