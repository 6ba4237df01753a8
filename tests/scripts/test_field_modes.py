"""The table of the field's modes: variants are trained by `fit`, once, and measured."""
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("field_modes")


def test_a_variant_is_trained_once_and_gets_into_the_table(script, person_shards, tmp_path, monkeypatch):
    words = ["--person", person_shards, "--output", str(tmp_path), "--config", "configs/person/tiny.yaml", "--steps", "2",
             "--size", "64", "--frames", "1", "--rays", "16", "--variants", "modulation-1"]
    script.run(script.parse(words))
    table = (tmp_path / "field_modes.md").read_text()
    figures = json.loads((tmp_path / "field_modes.json").read_text())["variants"]["modulation-1"]
    assert script.FIGURES.keys() <= figures.keys() and f"| {figures['lips_mouth_psnr']:.2f} |" in table
    field = script.load_model(tmp_path / "modulation-1-0.ckpt").field
    assert field.ambient[-1].out_features == 1 and field.colour_net[-1].in_features == 16  # the width of tiny.yaml
    assert figures["parameters"] == sum(part.numel() for part in field.parameters())

    monkeypatch.setattr(script, "main", lambda words: 2)
    script.run(script.parse(words))  # from what is kept
    assert (tmp_path / "field_modes.md").read_text() == table
    with pytest.raises(SystemExit, match="modulation-1 failed"):
        script.run(script.parse([*words, "--rays", "17"]))


def test_lips_held_still_are_measured_against_frames(script, new_person, person_video):
    """A recording that shows what the model does with still lips is met but for rounding, another one is not."""
    model, frame = new_person(samples=4), torch.tensor([36])
    boxes = torch.tensor([0.0, 0.0, 64.0, 64.0]).expand(40, 4, 4)
    loader = SimpleNamespace(dataset=frame)
    data = SimpleNamespace(video=person_video, learned=36, boxes=boxes, val_dataloader=lambda: loader)
    before = script.still_mouth(model, data)
    lips, eyes = model.lip_codes(person_video.mesh)
    condition = script.Condition(lips[:36].mean(0, keepdim=True), eyes[frame], frame - 37, person_video.body[frame])
    image = model.render(person_video.cameras[frame], condition).image.clamp(0, 1)
    frames = person_video.frames.clone()
    frames[frame] = (image * 255).round().byte().permute(0, 2, 3, 1)
    data.video = replace(person_video, frames=frames)
    assert script.still_mouth(model, data) > 50 > before
