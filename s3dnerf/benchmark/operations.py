"""Parameters and floating point operations of a model, from its own shapes.

Counted are products of matrices, convolutions, and bilinear and trilinear look-ups, a multiplication and an addition as two; not
what is done number by number (activations, the rendering integral).
"""
from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from s3dnerf.types import Cameras, Portrait

ATEN = torch.ops.aten
PARTS = {"encoder": "appearance encoder", "fusion": "slot fusion", "speech": "speech encoder",
         "deformation": "deformation field", "mesh_motion": "landmarks", "surroundings": "surroundings", "radiance": "decoder",
         "super_resolution": "super-resolution"}


def looked_up(_values, places, mode, *_, out_shape, **__):
    """Counts a look-up: a multiplication and an addition for every channel and neighbour of a place; mode 0 is linear, 1 takes
    the nearest, 2 is cubic."""
    return 2 * out_shape.numel() * (2, 1, 4)[mode] ** places[-1]


def resized(*_, out_shape, **__):
    """The same for a picture that is resized."""
    return 2 * out_shape.numel() * 4


LOOK_UPS = {ATEN.grid_sampler_2d: looked_up, ATEN.grid_sampler_3d: looked_up, ATEN.upsample_bilinear2d: resized}


def count(model, function):
    """What `function` returns, and the operations that it takes of every part of the model, and in all ("all")."""
    with FlopCounterMode(display=False, custom_mapping=LOOK_UPS) as counter, torch.no_grad():
        result = function()
    counts = {name: sum(values.values()) for name, values in counter.get_flop_counts().items()}
    parts = {name: counts.get(type(part).__name__, 0) for name, part in model.named_children() if name in PARTS}
    return result, parts | {"all": counter.get_total_flops()}


def operations(model, device="meta"):
    """({part: operations once per photo}, {part: operations per frame of the full size}); the model is moved to `device`."""
    model = model.to(device).eval().requires_grad_(False)
    size, new = model.image_size, lambda *shape: torch.zeros(*shape, device=device)
    portrait = Portrait(new(1, 3, size, size), new(1, 1, size, size), Cameras(new(1, 4, 4), new(1, 3, 3)), new(1, 478, 3),
                        new(1, 1, size, size))
    appearance, once = count(model, lambda: model.encode(portrait))
    speech = new(1, 1, model.features.channels, model.features.window)
    cameras = Cameras(new(1, 1, 4, 4), new(1, 1, 3, 3))
    _, each = count(model, lambda: model.render(appearance, model.drive(speech), cameras))
    return once, each


def table(model):
    """Lines of Markdown: parts, parameters, GFLOP once per photo and per frame."""
    parameters = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    parameters["all"] = sum(p.numel() for p in model.parameters())
    once, each = operations(model)
    lines = ["| part | parameters | GFLOP per photo | GFLOP per frame |", "|---|---:|---:|---:|"]
    row = lambda title, *numbers: "| " + " | ".join([title, *numbers]) + " |"
    giga = lambda number: f"{number / 1e9:,.3f}"
    for name, title in PARTS.items():
        if parameters.get(name):
            lines.append(row(title, f"{parameters[name]:,}", giga(once[name]), giga(each[name])))
    rest = [counts["all"] - sum(counts[name] for name in counts if name != "all") for counts in (once, each)]
    lines.append(row("look-ups", "", *map(giga, rest)))
    lines.append(row("all", f"{parameters['all']:,}", giga(once["all"]), giga(each["all"])))
    return lines
