"""Trains the four modes of RAD-NeRF's field, and its audio coordinate (1 to 3 numbers) on one person, and writes the table.

    field_modes.py --person runs/me/shards --output runs/field_modes

Every variant is the head stage of configs/person/rad_nerf.yaml with its own `field`, trained by `s3dnerf fit` on the same
batches (RAYS of each frame), measured on FRAMES of the held-out part. What has been trained with the same settings is kept.
"""
import argparse
import csv
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
import yaml

from s3dnerf.cli import main
from s3dnerf.commands.options import write_json
from s3dnerf.data.person import REGIONS, PersonDataModule
from s3dnerf.metrics import psnr
from s3dnerf.models.hub import load_model
from s3dnerf.systems.person import in_box
from s3dnerf.types import Condition

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "person" / "rad_nerf.yaml"
VARIANTS = {f"modulation-{number}": {"mode": "modulation", "audio_dimensions": number} for number in (1, 2, 3)} | {
    "composed-2": {"mode": "composed", "audio_dimensions": 2}, "deformation-3": {"mode": "deformation"},
    "implicit": {"mode": "implicit"}}
SETTINGS = {"steps": 700, "size": 128, "rays": 128, "frames": 12}
FIGURES = {"head_psnr": "head, speech", "mouth_psnr": "mouth, speech", "lips_head_psnr": "head, lips",
           "lips_mouth_psnr": "mouth, lips", "still_mouth_psnr": "mouth, lips held still",
           "opening_correlation": "heard opening", "parameters": "parameters", "minutes": "minutes"}


def command(variant, options, folder):
    """The command line of `s3dnerf` that trains a variant in a folder, into which it writes what the variant sets."""
    configs, field = [CONFIG, *options.config], {}
    for content in (yaml.safe_load(Path(path).read_text(encoding="utf-8")) for path in configs):  # `fit` does not lay one field over another
        for name in ("model", "init_args", "model", "init_args"):
            content = content.get(name, {})
        field = content.get("field", field)
    model = {"init_args": {"image_size": options.size, "field": field | VARIANTS[variant]}}
    log = {"class_path": "pytorch_lightning.loggers.CSVLogger", "init_args": {"save_dir": str(folder), "name": ""}}
    own = {name: getattr(options, name) for name in ("size", "rays", "seed")}
    settings = {"seed_everything": options.seed, "best": {"dirpath": str(folder)},
                "data": {"init_args": own | {"shards": options.person, "val_frames": options.frames}},
                "trainer": {"max_steps": options.steps, "val_check_interval": options.steps, "logger": [log]},
                "model": {"init_args": {"scheduler": {"init_args": {"T_max": options.steps}}, "model": model}}}
    configs.append(folder / "settings.yaml")
    configs[-1].write_text(yaml.safe_dump(settings), encoding="utf-8")
    return ["fit", *(word for path in configs for word in ("--config", str(path)))]


@torch.no_grad()
def still_mouth(model, data):
    """PSNR of the mouths of the frames that are validated on, while the lips keep their mean code: what needs no hearing."""
    video, frame = data.video, data.val_dataloader().dataset
    lips, eyes = model.lip_codes(video.mesh)
    still = lips[:data.learned].mean(0).expand(len(frame), -1)
    condition = Condition(still, eyes[frame], torch.full_like(frame, -1), video.body[frame])
    image, goal = model.eval().render(video.cameras[frame], condition).image, video.frames[frame].permute(0, 3, 1, 2) / 255
    box = in_box(data.boxes[frame, REGIONS.index("mouth")], goal.shape[-1])
    return statistics.fmean(psnr(*part).item() for part in zip(image.clamp(0, 1).split(1), goal.split(1), box.split(1)))


def trained(variant, options, data):
    """Figures of a variant, which is trained unless it has been; minutes of the processor, with reading and validation."""
    path = options.output / f"{variant}-{options.seed}.json"
    key = {name: getattr(options, name) for name in ("person", *SETTINGS)}
    key["config"] = [Path(file).read_text(encoding="utf-8") for file in (CONFIG, *options.config)]
    if path.is_file() and (kept := json.loads(path.read_text(encoding="utf-8")))["key"] == key:
        return kept["figures"]
    with tempfile.TemporaryDirectory(dir=options.output) as name:
        folder, begin = Path(name), time.process_time()
        if main(command(variant, options, folder)):
            raise SystemExit(f"{variant} failed")
        with (folder / "version_0" / "metrics.csv").open(encoding="utf-8") as file:
            last = [row for row in csv.DictReader(file) if row["val/head_psnr"]][-1]
        model = load_model(folder / "best.ckpt")
        figures = {name[4:]: float(value) for name, value in last.items() if name.startswith("val/")}
        figures |= {"still_mouth_psnr": still_mouth(model, data), "minutes": (time.process_time() - begin) / 60,
                    "parameters": sum(part.numel() for part in model.field.parameters())}
        (folder / "best.ckpt").replace(path.with_suffix(".ckpt"))
    write_json({"key": key, "figures": figures}, str(path))
    return figures


def run(options):
    """Everything: training, figures, table."""
    options.output.mkdir(parents=True, exist_ok=True)
    data = PersonDataModule(options.person, val_frames=options.frames, size=options.size)
    data.setup()
    results = {variant: trained(variant, options, data) for variant in options.variants}
    settings = {name: getattr(options, name) for name in (*SETTINGS, "seed")}
    lines = [", ".join(f"{name} {value}" for name, value in settings.items()) + "; dB", "",
             f"| mode, numbers of the coordinate | {' | '.join(FIGURES.values())} |", "|---|" + "---:|" * len(FIGURES)]
    for variant, found in results.items():
        cells = [f"{found[name]:,}" if name == "parameters" else f"{found[name]:.2f}" for name in FIGURES]
        lines.append(f"| {' | '.join([variant.replace('-', ', '), *cells])} |")
    (options.output / "field_modes.md").write_text("\n".join([*lines, ""]), encoding="utf-8")
    write_json({"settings": settings, "variants": results}, str(options.output / "field_modes.json"))


def parse(args=None):
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--person", required=True, help="folder of shards of one person, as `s3dnerf personalize` makes it")
    parser.add_argument("--output", type=Path, default="runs/field_modes")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS, metavar="NAME", help=" ".join(VARIANTS))
    parser.add_argument("--config", nargs="+", default=[], help="YAML on top, such as configs/person/tiny.yaml")
    for name, value in (SETTINGS | {"seed": 0}).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args(args)


if __name__ == "__main__":
    run(parse())
