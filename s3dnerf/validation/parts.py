"""Parts of a model switched off for a while, by hooks on its modules, so that what they contribute can be measured."""
from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Iterator, Sequence

import torch
from torch import Tensor, nn

from s3dnerf.models.one_shot import S3DNeRF


@contextmanager
def without_offsets(model: S3DNeRF) -> Iterator[None]:
    """Nothing moves: landmarks are driven by the photo's own code, and the learned offset is 0."""

    def own(_module, arguments):
        mesh, code = arguments
        return mesh, model.face_code.own(mesh)[:, None].expand_as(code)

    with ExitStack() as stack:
        stack.callback(model.mesh_motion.register_forward_pre_hook(own).remove)
        still = model.deformation.register_forward_hook(lambda _m, _a, found: replace(found, offset=found.offset * 0))
        stack.callback(still.remove)
        yield


@contextmanager
def without_modulation(model: S3DNeRF) -> Iterator[None]:
    """Speech changes no feature of any point."""
    handle = model.deformation.register_forward_hook(lambda _m, _a, found: replace(found, modulation=found.modulation * 0))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def without_super_resolution(model: S3DNeRF) -> Iterator[None]:
    """The base image as it is."""
    kept, model.super_resolution = model.super_resolution, None
    try:
        yield
    finally:
        model.super_resolution = kept


@contextmanager
def with_even_samples(model: S3DNeRF) -> Iterator[None]:
    """As many samples of the second pass, but placed evenly."""
    kept, model.renderer.importance = model.renderer.importance, False
    try:
        yield
    finally:
        model.renderer.importance = kept


@contextmanager
def with_many_samples(model: S3DNeRF, times: int = 8) -> Iterator[None]:
    """More samples in both passes."""
    renderer = model.renderer
    kept = renderer.coarse_samples, renderer.fine_samples
    renderer.coarse_samples, renderer.fine_samples = (times * count for count in kept)
    try:
        yield
    finally:
        renderer.coarse_samples, renderer.fine_samples = kept


@contextmanager
def watched(module: nn.Module) -> Iterator[list]:
    """The (arguments, result) of every call of a module."""
    seen: list = []
    handle = module.register_forward_hook(lambda _m, arguments, found: seen.append((arguments, found)))
    try:
        yield seen
    finally:
        handle.remove()


@contextmanager
def repeating(module: nn.Module, seen: list) -> Iterator[None]:
    """Every call of a module gives what it gave before, call by call (`watched`), whatever it is asked."""
    answers = iter(seen)
    handle = module.register_forward_hook(lambda _m, _a, _f: next(answers)[1])
    try:
        yield
    finally:
        handle.remove()


def gradients(images: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of a random projection of images with respect to tensors; 0 for what images do not depend on."""
    if not images.requires_grad:
        return [torch.zeros_like(tensor) for tensor in tensors]
    found = torch.autograd.grad((images * torch.randn_like(images)).mean(), list(tensors), allow_unused=True)
    return [torch.zeros_like(tensor) if gradient is None else gradient for tensor, gradient in zip(tensors, found)]
