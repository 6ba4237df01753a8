"""Weights: where they are found, and how they are kept.

A *bundle* is a folder with `model.safetensors` (parameters only) and `config.yaml` (the model's class and arguments), and
beside them, where there is one, `lip_sync.safetensors` and `lip_sync.yaml` of the lip discriminator that taught it.
Bundles that ship with the package lie in `s3dnerf/assets/weights`. A training checkpoint (.ckpt) can be used in place
of a bundle.
"""
from __future__ import annotations

import hashlib
import os
from importlib.resources import files
from pathlib import Path
from typing import Union

import torch
import yaml
from torch import nn

from s3dnerf.errors import CheckpointError
from s3dnerf.models.ad_nerf import ADNeRF
from s3dnerf.models.adapted import AdaptedHead
from s3dnerf.models.disentangled import DisentangledHead
from s3dnerf.models.one_shot import S3DNeRF
from s3dnerf.models.person import Person
from s3dnerf.models.rad_nerf import RADNeRF
from s3dnerf.networks.lip_sync import LipSyncDiscriminator

DEFAULT = "one-shot-256"
CLASSES = {kind.__name__: kind for kind in (S3DNeRF, RADNeRF, ADNeRF, DisentangledHead, AdaptedHead, LipSyncDiscriminator)}
TALKING = tuple(name for name in CLASSES if name != "LipSyncDiscriminator")
"""Classes that speak; the other judges."""


def weights_folder() -> Path:
    """Where the bundles that ship with the package lie."""
    return Path(str(files("s3dnerf") / "assets" / "weights"))


def available_models() -> list[str]:
    """Names of the bundles that ship with the package."""
    return sorted(path.parent.name for path in weights_folder().glob("*/model.safetensors"))


def find_weights(weights: Union[str, Path], name: str = "model", config: str = "config") -> Path:
    """The bundle's folder or the checkpoint's file for a name, a folder or a path; CheckpointError if there is none.

    `name` and `config` are the stems of the files that the folder must hold.
    """
    path = Path(weights)
    for candidate in (weights_folder() / str(weights), path):
        if (candidate / f"{name}.safetensors").is_file() and (candidate / f"{config}.yaml").is_file():
            return candidate
    if path.suffix == ".ckpt" and path.is_file():
        return path
    names = ", ".join(available_models()) or "none is installed"
    raise CheckpointError(f"no weights {str(weights)!r}; give a name ({names}), a folder with "
                          f"{name}.safetensors and {config}.yaml, or a training checkpoint (.ckpt)")


def load_model(weights: Union[str, Path] = DEFAULT, device: Union[str, torch.device] = "cpu") -> Union[S3DNeRF, Person]:
    """A talking head in eval mode, from a name, a folder or a training checkpoint; CheckpointError if it does not load."""
    path = find_weights(weights)
    if path.is_file():
        return _from_checkpoint(path, *TALKING).to(device).eval()
    return _from_bundle(path, "model", "config").to(device).eval()


def load_lip_sync(weights: Union[str, Path, None] = DEFAULT) -> LipSyncDiscriminator:
    """A trained lip discriminator in eval mode, from a bundle or a training checkpoint of `LipSyncSystem`."""
    if weights is None:
        raise CheckpointError("the lip-sync loss needs a trained discriminator; give its checkpoint as `lip_sync`, or set "
                              "objective.lip_sync to 0")
    path = find_weights(weights, "lip_sync", "lip_sync")
    if path.is_file():
        return _from_checkpoint(path, "LipSyncDiscriminator").eval()
    return _from_bundle(path, "lip_sync", "lip_sync").eval()


def save_model(model: nn.Module, folder: Union[str, Path], name: str = "model", config: str = "config") -> None:
    """Writes a bundle; both files appear at once and whole. `name` and `config` are the files' stems."""
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights, text = folder / f".{name}.safetensors.part", folder / f".{config}.yaml.part"
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, str(weights))
    described = yaml.safe_dump({"class": type(model).__name__, "arguments": plain(model.arguments)}, sort_keys=False)
    text.write_text(described, encoding="utf-8")
    weights.chmod(text.stat().st_mode)  # safetensors lets nobody else read
    os.replace(weights, folder / f"{name}.safetensors")
    os.replace(text, folder / f"{config}.yaml")


def plain(value):
    """Tuples as lists, so that YAML stays readable."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def build(description: dict) -> nn.Module:
    """A model from its class name and arguments."""
    name = description.get("class")
    if name not in CLASSES:
        raise CheckpointError(f"found a bundle of class {name!r}; this version knows {', '.join(CLASSES)}")
    try:
        return CLASSES[name](**description["arguments"])
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the bundle was made by another version: {error}") from None


def _from_bundle(folder: Path, name: str, config: str) -> nn.Module:
    from safetensors.torch import load_file

    try:
        description = yaml.safe_load((folder / f"{config}.yaml").read_text(encoding="utf-8"))
        state = load_file(str(folder / f"{name}.safetensors"))
    except (OSError, yaml.YAMLError) as error:
        raise CheckpointError(f"cannot read the bundle {folder}: {error}") from None
    except Exception as error:  # safetensors raises its own type for damaged files
        raise CheckpointError(f"{folder / (name + '.safetensors')} is damaged: {error}") from None
    model = build(description)
    _load_state(model, state, folder)
    return model


def _from_checkpoint(path: Path, *kinds: str) -> nn.Module:
    """The model inside a checkpoint of a system: its arguments travel under `model_description`."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for files that are no checkpoints
        raise CheckpointError(f"{path} is not a training checkpoint: {type(error).__name__}") from None
    description = content.get("model_description", {})
    if description.get("class") not in kinds:
        raise CheckpointError(f"found a checkpoint of {description.get('class')!r} in {path}; expected one of "
                              f"{' or '.join(kinds)}")
    model = build(description)
    state = {key[6:]: value for key, value in content["state_dict"].items() if key.startswith("model.")}
    _load_state(model, state, path)
    return model


def _load_state(model: nn.Module, state: dict, origin: Path) -> None:
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{origin} does not fit its own configuration: {str(error).splitlines()[-1].strip()}") from None


def digest(module: nn.Module) -> str:
    """SHA-256 of all weights."""
    total = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        total.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()
