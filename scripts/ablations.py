#!/usr/bin/env python3
"""Trains the ablations for the same number of steps on the same shards, measures them, and writes the table.

    ablations.py --train data/train --val data/val --output runs/ablations

Every variant is configs/one_shot.yaml, a preset, configs/ablations/full.yaml and its own overlay. All start from the same
speech encoder, which stays as it is; each then teaches its deformation field on landmarks (configs/motion.yaml) and renders
(configs/one_shot.yaml), with the same seed and batches. What has been trained or measured with the same settings is not done
again; training that was stopped goes on. The table is in OUTPUT/ablations.md and .csv, every clip's figures in
OUTPUT/VARIANT/figures.json, videos of the first clips beside it; `s3dnerf compare OUTPUT/full OUTPUT/VARIANT` shows
them together.
"""
import argparse
import csv
import json
from itertools import islice
from pathlib import Path

import torch
import yaml

from s3dnerf.allocator import keep_freed_memory
from s3dnerf.cli import main
from s3dnerf.data.module import ClipDataModule
from s3dnerf.digest import file_digest
from s3dnerf.evaluation.faces import landmark_figures
from s3dnerf.evaluation.footage import Footage, look
from s3dnerf.evaluation.networks import find as find_network, load_lpips
from s3dnerf.evaluation.protocol import Protocol
from s3dnerf.geometry import project
from s3dnerf.metrics import sharpness, ssim_gaussian, sync_margin
from s3dnerf.models.hub import load_lip_sync, load_model
from s3dnerf.networks.lip_sync import crop_lips
from s3dnerf.significance import difference, interval
from s3dnerf.systems.tracking import pixels, read_spoken, write_regions, write_video
from s3dnerf.types import Motion

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
VARIANTS = ("full", "no_deformation", "naive_deformation", "concatenation", "no_lip_sync", "modulation_only",
            "deformation_only", "single_scale", "no_importance", "no_super_resolution", "landmarks")
EMPTY = 0.05
"""mean opacity below which training has lost the head, and the figures are the still photo's"""
REGIONS = 128
"""side of the pictures of where speech reaches, pixels"""
WINDOW = 56 / 128
"""side of a rendered window that holds the lips, in sides of the frame"""
FIGURES = {"ssim": "SSIM", "lpips": "LPIPS", "f_lmd": "F-LMD", "m_lmd": "M-LMD", "mouth_corr": "mouth corr.",
           "sharpness": "sharpness", "sync": "sync", "lips_m_lmd": "M-LMD, lips", "lips_mouth_corr": "mouth corr., lips"}


def overlays(variant, options):
    """The configurations of a variant, in the order in which they are stacked."""
    own = [] if variant == "full" else [CONFIGS / "ablations" / f"{variant}.yaml"]
    return [CONFIGS / "one_shot.yaml", options.preset, CONFIGS / "ablations" / "full.yaml", *own]


def merged(configs):
    """YAML files laid over each other; lists and scalars of later ones take the place of earlier ones."""

    def lay(below, above):
        both = isinstance(below, dict) and isinstance(above, dict)
        return below | {key: lay(below.get(key), value) for key, value in above.items()} if both else above

    content = {}
    for path in configs:
        content = lay(content, yaml.safe_load(path.read_text(encoding="utf-8")))
    return content


def stage_settings(stage, variant, options, folder, start):
    """What a stage sets beside its configurations: length, places, and where it starts from; `start` as in `init_from`."""
    steps = options.motion_steps if stage == "motion" else options.steps
    keep = {"dirpath": str(folder), "filename": "last", "every_n_train_steps": max(1, steps // 4),
            "enable_version_counter": False}
    settings = {
        "seed_everything": options.seed, "best": {"monitor": None, "dirpath": str(folder)},
        "trainer": {"max_steps": steps, "limit_val_batches": 0, "enable_progress_bar": False, "log_every_n_steps": 10,
                    "logger": [{"class_path": "pytorch_lightning.loggers.CSVLogger",
                                "init_args": {"save_dir": str(folder), "name": "log"}}],
                    "callbacks": [{"class_path": "pytorch_lightning.callbacks.ModelCheckpoint", "init_args": keep}]},
        "model": {"init_args": {"init_from": start, "scheduler": {"init_args": {"T_max": steps}}}},
        "data": {"init_args": {"train": str(options.train), "val": str(options.val), "workers": 0}}}
    if stage == "motion":  # of the overlays it can use the model and the size alone
        overlay = merged(overlays(variant, options)[2:])
        settings["model"]["init_args"] |= {"model": overlay["model"]["init_args"].get("model", {}), "code": 0.0,
                                           "train_only": ["deformation", "fusion", "radiance", "no_speech"]}
        settings["data"]["init_args"]["size"] = overlay["data"]["init_args"]["size"]
    if options.lr is not None:
        settings["model"]["init_args"]["optimizer"] = {"init_args": {"lr": options.lr}}
    if options.size is not None:
        model = settings["model"]["init_args"].setdefault("model", {}).setdefault("init_args", {})
        model["image_size"] = settings["data"]["init_args"]["size"] = options.size
        if stage != "motion":
            settings["model"]["init_args"]["window"] = round(options.size * WINDOW / 4) * 4
    return settings


def train(stage, variant, options, start):
    """Trains a stage of a variant, unless it has been, and returns its checkpoint."""
    folder = options.output / variant / stage
    folder.mkdir(parents=True, exist_ok=True)
    settings, last = stage_settings(stage, variant, options, folder, start), folder / "last.ckpt"
    text, kept = yaml.safe_dump(settings, sort_keys=False), folder / "settings.yaml"
    done = 0
    if last.is_file() and kept.is_file() and kept.read_text(encoding="utf-8") == text:
        done = torch.load(last, map_location="cpu", weights_only=False)["global_step"]
    else:
        last.unlink(missing_ok=True)
    kept.write_text(text, encoding="utf-8")
    if done < settings["trainer"]["max_steps"]:
        base = [CONFIGS / "motion.yaml", options.preset] if stage == "motion" else overlays(variant, options)
        args = ["fit", *(word for path in [*base, kept] for word in ("--config", str(path)))]
        if main(args + (["--ckpt_path", str(last)] if done else [])):
            raise SystemExit(f"{variant}: {stage} failed")
    return last


def landmarks(frames):
    """Landmarks [T, 478, 2] that the face tracker finds in frames [T, 3, H, W], and in which it finds a face [T]."""
    pictures = (frames.permute(0, 2, 3, 1).clamp(0, 1) * 255).round().byte().numpy()
    footage = look("", lambda: iter(pictures))
    return torch.from_numpy(footage.landmarks).float(), torch.from_numpy(footage.seen)


def mouth_figures(points, truth):
    """F-LMD, M-LMD and the correlation of the mouth's opening of landmarks [T, 478, 2] against the recording's, as
    `s3dnerf evaluate` has them; distances in percent of the eye distance."""
    made, true = (Footage("", lambda: iter(()), x.numpy(), (1, 1)) for x in (points, truth))
    found = landmark_figures(made, true, Protocol())
    names = {"f_lmd": "f_lmd_percent", "m_lmd": "m_lmd_percent", "mouth_corr": "mouth_correlation"}
    return {name: found.get(figure) for name, figure in names.items()}


def frame_figures(frames, clip, truth, judge, lpips):
    """All figures of frames [T, 3, H, W] that stand for a clip whose recorded landmarks are `truth` [T, 478, 2]."""
    head = torch.nn.functional.interpolate(clip.head[0], size=frames.shape[-2:])
    figures = {"ssim": ssim_gaussian(frames, clip.frames[0]).mean().item(),
               "sharpness": (sharpness(frames, head).mean() / sharpness(clip.frames[0], head).mean()).item(),
               "lpips": lpips(2 * frames - 1, 2 * clip.frames[0] - 1).mean().item() if lpips else None, "sync": None}
    if judge is not None and len(frames) > judge.frames:
        lips = crop_lips(frames[None], project(clip.mesh, clip.cameras)[0])
        figures["sync"] = sync_margin(judge(lips, clip.mel)[0]).item()
    points, seen = landmarks(frames)
    return figures | mouth_figures(points, truth) | {"faces": seen.float().mean().item()}


def film(frames, clip, sounds, folder, name="speech"):
    """Writes frames [T, 3, H, W] of a clip, if it is one of those whose sound is given, as `LogRenderings` does; returns the
    beginning of its files' names, None for other clips."""
    key = clip.keys[0]
    if key not in sounds:
        return None
    stem = folder / "renderings" / f"{key}-step000000"
    stem.parent.mkdir(parents=True, exist_ok=True)
    write_video(pixels(frames), sounds[key], Path(f"{stem}-{name}.mp4"))
    return stem


@torch.inference_mode()
def measure(model, clips, truths, judge, lpips, sounds, folder):
    """Figures of every clip: driven by its speech (with its own blinks), and, `lips_`, by its tracked lips. Of the clips that
    `sounds` [T * 640] has there are videos, and pictures of where speech reaches."""
    rows = []
    for clip, truth in zip(clips, truths):
        appearance = model.encode(clip.portrait)
        code = model.face_code.driving(clip.mesh, clip.mean_mesh[:, None])
        by_speech = model.drive(clip.speech)
        by_speech = Motion(torch.cat([by_speech.code[..., :-1], code[..., -1:]], -1), by_speech.tokens)
        picture = lambda rendering: rendering.image[0].clamp(0, 1)
        rendering = model.render(appearance, by_speech, clip.cameras)
        if stem := film(picture(rendering), clip, sounds, folder):
            write_regions(rendering, stem, REGIONS)
        figures = frame_figures(picture(rendering), clip, truth, judge, lpips)
        by_lips = picture(model.render(appearance, model.drive_face(code), clip.cameras))
        by_lips = mouth_figures(landmarks(by_lips)[0], truth)
        figures |= {f"lips_{name}": by_lips[name] for name in ("m_lmd", "mouth_corr")}
        rows.append({"clip": clip.keys[0], "opacity": rendering.opacity.mean().item()} | figures)
    return rows


def reference(clips, truths, judge, lpips, shown):
    """Figures of what needs no model: frames [T, 3, H, W] that `shown` makes of a clip."""
    return [{"clip": clip.keys[0]} | frame_figures(shown(clip), clip, truth, judge, lpips) for clip, truth in zip(clips, truths)]


def perceptual_network():
    """LPIPS with its AlexNet where torch keeps one on this machine; None otherwise, never random weights."""
    path = find_network("alexnet", None)
    return None if path is None else load_lpips(path)


def differs(rows, full, name):
    """Whether a figure differs from `full`'s by more than the 95 % interval of the difference on the same clips."""
    found = difference(*({row["clip"]: row[name] for row in some if row.get(name) is not None} for some in (rows, full)))
    return found is not None and (found.change.low > 0 or found.change.high < 0)


def cell(found):
    """A mean with its interval: `0.261 (0.087 to 0.423)`."""
    return f"{found.mean:.3f}" + (f" ({found.low:.3f} to {found.high:.3f})" if found.low is not None else "")


def write_table(results, output, judged_by, settings):
    """OUTPUT.md and OUTPUT.csv from {variant: [figures of a clip]}."""
    names = [name for name in FIGURES if name != "sync"] + ["sync"]
    titles = [FIGURES[name] + (f" ({judged_by})" if name == "sync" else "") for name in names]
    lines = [f"| variant | {' | '.join(titles)} |", "|---|" + "---:|" * len(names)]
    records = []
    for variant, rows in results.items():
        cells, record = [], {"variant": variant, "clips": len(rows), "sync_judge": judged_by}
        for name in names:
            found = interval([row.get(name) for row in rows])
            record |= {name: found and found.mean, f"{name}_low": found and found.low, f"{name}_high": found and found.high}
            mark = "*" if variant not in ("full", "recording", "still photo") and "full" in results \
                and differs(rows, results["full"], name) else ""
            absent = "" if name.startswith("lips") and variant in ("recording", "still photo") else "missing"
            cells.append(absent if found is None else cell(found) + mark)
        empty = "opacity" in rows[0] and interval([row["opacity"] for row in rows]).mean < EMPTY
        lines.append(f"| {variant.replace('_', ' ')}{' (empty)' if empty else ''} | {' | '.join(cells)} |")
        records.append(record)
    (output / "ablations.md").write_text("\n".join([*settings, "", *lines, ""]), encoding="utf-8")
    with (output / "ablations.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(records[0]))
        writer.writeheader()
        writer.writerows(records)


def kept(path, key, compute):
    """What a file holds if it was written under the same key; else what is computed, which it then holds."""
    if path.is_file():
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["key"] == key:
            return content["clips"]
    rows = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps({"key": key, "clips": rows}, indent=1), encoding="utf-8")
    part.replace(path)
    return rows


def judge_name(judge, options):
    """What the sync column is called: a judge that is the very net that the loss used says so."""
    if judge is None:
        return "missing"
    taught = load_lip_sync(merged(overlays("full", options))["model"]["init_args"]["lip_sync"]).state_dict()
    own = judge.state_dict()
    same = own.keys() == taught.keys() and all(torch.equal(own[name], taught[name]) for name in own)
    return "training expert" if same else "judging expert"


def run(options):
    """Everything: training, figures, table."""
    size = options.size or merged(overlays("full", options))["data"]["init_args"]["size"]
    data = ClipDataModule(val=str(options.val), frames=options.frames, val_frames=0, val_clips=None, size=size)
    judge, lpips = load_lip_sync(options.judge) if options.judge else None, perceptual_network()
    judged_by = judge_name(judge, options)
    key = {"frames": options.frames, "every": options.every, "judge": options.judge, "lpips": lpips is not None,
           "videos": options.videos}
    clips = list(islice(data.val_dataloader(), 0, None, options.every))
    sounds = {clip.keys[0]: read_spoken(data, clip.keys[0], options.frames).sound for clip in clips[:options.videos]}
    key["clips"] = [clip.keys[0] for clip in clips]
    for clip in clips:
        film(clip.frames[0], clip, sounds, options.output / "recording", "recording")
    with torch.inference_mode():
        truths = [landmarks(clip.frames[0])[0] for clip in clips]
        measured = lambda shown: reference(clips, truths, judge, lpips, shown)
        results = {"recording": kept(options.output / "recording" / "figures.json", key, lambda: measured(lambda clip: clip.frames[0])),
                   "still photo": measured(lambda clip: clip.portrait.image.expand_as(clip.frames[0]))}
    for variant in options.variants:
        motion = train("motion", variant, options, {"speech": options.speech})
        checkpoint = train("one_shot", variant, options, {"": str(motion)})
        trained = file_digest(checkpoint)
        folder = options.output / variant
        results[variant] = kept(folder / "figures.json", key | {"trained": trained},
                                lambda: measure(load_model(checkpoint), clips, truths, judge, lpips, sounds, folder))
        write_table(results, options.output, judged_by, describe(options, clips))


def describe(options, clips):
    """Lines over the table: how it was made."""
    rate = "" if options.lr is None else f" at learning rate {options.lr:g}"
    return [f"{options.motion_steps} steps on landmarks and {options.steps} rendered steps each{rate}, seed {options.seed}, "
            f"preset {options.preset.stem}, {clips[0].frames.shape[-1]} pixels; {len(clips)} val clips, the first "
            f"{options.frames} frames of each at most.",
            "Means with 95 % intervals (bootstrap over clips); * the interval of the difference from full, clip by clip, "
            "leaves out 0."]


def parse(args=None):
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, help="folder of training shards")
    parser.add_argument("--val", type=Path, required=True, help="folder of validation shards")
    parser.add_argument("--output", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS, metavar="NAME",
                        help=", ".join(VARIANTS))
    parser.add_argument("--preset", type=Path, default=CONFIGS / "overlays" / "tiny.yaml")
    parser.add_argument("--speech", default="one-shot-256", help="checkpoint or bundle of the speech encoder")
    parser.add_argument("--motion-steps", type=int, default=300)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--lr", type=float, help="learning rate, if not the configurations' own; short runs want more")
    parser.add_argument("--size", type=int, help="side of the frames, pixels, where it is not that of full.yaml")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--judge", help="bundle or checkpoint of the lip discriminator that judges; none leaves sync out")
    parser.add_argument("--every", type=int, default=1, help="measure every n-th validation clip")
    parser.add_argument("--frames", type=int, default=40, help="measure so many frames of a clip at most")
    parser.add_argument("--videos", type=int, default=2, help="write videos of so many clips, with sound")
    return parser.parse_args(args)


if __name__ == "__main__":
    keep_freed_memory()
    run(parse())
