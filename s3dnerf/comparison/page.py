"""The comparison as one HTML page that needs nothing beside it."""
from __future__ import annotations

import base64
import io
import os
import re
import shutil
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Sequence
from urllib.parse import quote

from s3dnerf.comparison.benchmark import machines_differ, pace
from s3dnerf.comparison.charts import COLOURS, chart, short
from s3dnerf.comparison.comparison import LEVEL, Cell, Comparison
from s3dnerf.comparison.run import INTERVAL, Run

TYPES = {".mp4": "video/mp4", ".png": "image/png"}
KINDS = {"training": "training", "ablation": "an ablation", "wandb": "a run of wandb", "evaluation": "an evaluation",
         "benchmark": "a benchmark"}
POSTER = 224
"""pixels of a video's still picture"""
WORDS = {"better": "▲ better", "worse": "▼ worse", "differs": "◆ differs", "same": "no difference shown", "open": ""}


@dataclass
class Media:
    """Puts videos and pictures into the page, up to a size; the rest is linked to where it lies."""

    page: Path
    limit: float
    """megabytes in all"""
    passing: Path
    """folder of files that will not stay: of them, what is not put into the page is copied beside it"""
    used: float = field(default=0.0, init=False)

    def source(self, path: Path) -> str:
        """What the page has as the address of a file."""
        megabytes = path.stat().st_size / 1e6
        if self.used + megabytes <= self.limit:
            self.used += megabytes
            return f"data:{TYPES[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"
        if self.passing in path.parents:
            kept = self.page.with_name(f"{self.page.stem}-media") / path.relative_to(self.passing)
            kept.parent.mkdir(parents=True, exist_ok=True)
            path = Path(shutil.copyfile(path, kept))
        return quote(os.path.relpath(path, self.page.parent))


def page(comparison: Comparison, media: Media) -> str:
    """The whole page."""
    runs, part = comparison.runs, lambda name: (files("s3dnerf.comparison") / name).read_text(encoding="utf-8")
    title = f"{len(runs)} runs compared: {', '.join(run.name for run in runs)}"
    body = [f"<h1>{len(runs)} runs compared</h1>",
            f'<p class="soft">Every run is compared with the first one, <strong>{escape(runs[0].name)}</strong>.</p>',
            warnings(runs), summary(comparison), figure_table(comparison), films(runs, media), maps(runs, media), curves(runs),
            setting_table(comparison), method(comparison)]
    return ('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(title)}</title><style>{part('page.css')}</style></head>\n<body><main>\n"
            + "\n".join(filter(None, body)) + f"\n</main><script>{part('page.js')}</script></body></html>\n")


def key(index: int) -> str:
    """How a run's curves are drawn, as a sample of it."""
    return (f'<svg class="key" viewBox="0 0 26 10" aria-hidden="true"><line class="run{index % COLOURS}" x1="0" x2="26" y1="5" '
            'y2="5"/></svg>')


def summary(comparison: Comparison) -> str:
    """A sentence about every run."""
    rows = [f'<li class="edge{index % COLOURS}">{key(index)}{sentence(comparison, index)}</li>'
            for index in range(len(comparison.runs))]
    return f'<ul class="summary">{"".join(rows)}</ul>'


def sentence(comparison: Comparison, index: int) -> str:
    """What a run is and how it stands to the first one, in words."""
    run, counts = comparison.runs[index], comparison.counts(index)
    about = [KINDS[run.kind]]
    about += [counted(run.steps, "step")] if run.steps else []
    about += [f"commit {run.commit.rstrip('+')}{' with changes' if run.commit.endswith('+') else ''}"] if run.commit else []
    head = f"<strong>{escape(run.name)}</strong> ({', '.join(about)})"
    if run.kind == "benchmark":
        return f"{head}: {pace(run, comparison.runs[0])}."
    measured = f"{counted(len(run.figures), 'figure')} over {counted(len(run.clips), 'clip')}" if run.clips else \
        f"{counted(len(run.figures), 'figure')}, of which only means are known"
    if index == 0:
        return f"{head} is what the others are compared with; {measured}."
    tested = len(comparison.figures) - counts["open"]
    settings = sum(values[index] != values[0] for values in comparison.settings.values())
    if not tested:
        return f"{head} differs in {counted(settings, 'setting')}; no clip has been measured in both, so nothing could be tested."
    words = {"better": "better", "worse": "worse", "differs": "otherwise different"}
    told = [f"{word} in {counts[name]}" for name, word in words.items() if counts[name]]
    found = f"it is {', '.join(told)} of {counted(tested, 'figure')}, and no difference is shown in {counts['same']}" if told else \
        f"in none of {counted(tested, 'figure')} a difference is shown"
    return f"{head} differs in {counted(settings, 'setting')}; {found}."


def counted(number: int, word: str) -> str:
    """`1 step`, `2,000 steps`."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def warnings(runs: Sequence[Run]) -> str:
    """What makes figures not comparable."""
    hashes = {str(value) for run in runs for name, value in run.config.items() if name == "protocol.hash"}
    mixed = any(run.kind == "evaluation" for run in runs) and any(run.kind != "evaluation" for run in runs)
    told = ["Protocols differ: figures of different protocols cannot be compared."] if len(hashes) > 1 else []
    told += ["Evaluations stand beside trainings: figures of the same name may be measured in other ways."] if mixed else []
    told += ["Benchmarks of different machines, or numbers of threads, stand beside each other."] if machines_differ(runs) else []
    return "".join(f'<p class="warning" role="note">{text}</p>' for text in told)


def figure_table(comparison: Comparison) -> str:
    """Means, intervals, and what the tests say."""
    if not comparison.figures:
        return "<h2>Figures</h2><p>None of these runs has validation figures.</p>"
    head = "".join(f'<th scope="col">{key(index)}{escape(run.name)}</th>' for index, run in enumerate(comparison.runs))
    rows = [f'<tr><th scope="row">{breaking(name)}{arrow(name)}</th>{"".join(map(cell, cells))}</tr>'
            for name, cells in comparison.figures.items()]
    told = "Means over clips with their 95 % intervals; p is corrected for all tests of this table."
    if all(run.kind == "benchmark" for run in comparison.runs):
        told = "One measurement each; × is how many times the first one's figure it is."
    return (f"<h2>Figures</h2><p>{told} ↑ more is better, ↓ less is.</p>"
            '<div class="scroll" tabindex="0" role="region" aria-label="Figures of all runs">'
            f'<table class="sortable"><caption>Figures of all runs</caption><thead><tr>'
            f'<th scope="col">figure</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>')


def breaking(name: str) -> str:
    """A name that may be broken after its separators, and nowhere else."""
    return re.sub(r"([_./: -])(?=\w)", r"\1<wbr>", escape(name))


def arrow(figure: str) -> str:
    """In which direction a figure gets better."""
    from s3dnerf.comparison.comparison import better

    sign, words = better(figure), {1: ("↑", "more is better"), -1: ("↓", "less is better")}
    return f' <span class="soft" title="{words[sign][1]}">{words[sign][0]}</span>' if sign else ""


def cell(content: Cell) -> str:
    """A figure of a run."""
    mean = content.mean
    if mean is None:
        return '<td data-value="">–</td>'
    bounds = f"<small>{short(mean.low)} to {short(mean.high)}</small>" if mean.low is not None else ""
    mark = "" if content.ratio is None else f"<small>× {content.ratio:.3g}</small>"
    if content.change is not None:
        p = "p &lt; 0.001" if content.p < 1e-3 else f"p {content.p:.3f}"
        word = f'<span class="{content.verdict}">{WORDS[content.verdict]}</span>'
        mark = f"<small>{word}, {content.change.change.mean:+.3g}, {p}</small>"
    return f'<td data-value="{mean.mean:.9g}">{short(mean.mean)}{bounds}{mark}</td>'


def films(runs: Sequence[Run], media: Media) -> str:
    """The same clips beside each other."""
    parts, recorded = [], {clip: path for run in runs for clip, path in run.recordings.items()}
    for clip in dict.fromkeys(clip for run in runs for clip in run.videos):
        shown = [("", "recording", recorded[clip])] if clip in recorded else []
        shown += [(key(index), run.name, run.videos[clip]) for index, run in enumerate(runs) if clip in run.videos]
        videos = [f'<figure><figcaption>{sample}{breaking(name)}</figcaption><video controls loop playsinline preload="metadata" '
                  f'poster="{poster(path)}" aria-label="{escape(name)}, {escape(clip)}" src="{media.source(path)}"></video>'
                  "</figure>"
                  for sample, name, path in shown]
        parts.append(f'<h3>{escape(clip)}</h3><button class="play" type="button" hidden>Play all from the beginning</button>'
                     f'<div class="films">{"".join(videos)}</div>')
    return f"<h2>Videos</h2>{''.join(parts)}" if parts else ""


def poster(video: Path) -> str:
    """The address of a video's first picture, which is shown until it is played."""
    from PIL import Image

    from s3dnerf.media import read_frames

    picture, content = Image.fromarray(next(read_frames(video))), io.BytesIO()
    picture.thumbnail((POSTER, POSTER))
    picture.save(content, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def maps(runs: Sequence[Run], media: Media) -> str:
    """Where speech reaches, of the same clips beside each other."""
    parts = []
    for clip in dict.fromkeys(clip for run in runs for clip in run.pictures):
        shown = [(index, run) for index, run in enumerate(runs) if clip in run.pictures]
        pictures = [f'<figure><figcaption>{key(index)}{breaking(run.name)}</figcaption>'
                    f'<img alt="region score of {escape(run.name)}" src="{media.source(run.pictures[clip])}"></figure>'
                    for index, run in shown]
        parts.append(f'<h3>{escape(clip)}</h3><div class="films maps">{"".join(pictures)}</div>')
    told = "<p>The region score, red where speech moves or changes what is seen, mean over a clip.</p>"
    return f"<h2>Where speech reaches</h2>{told}{''.join(parts)}" if parts else ""


def curves(runs: Sequence[Run]) -> str:
    """Validation's curves, and the losses of training folded away below."""
    names = [name for name in dict.fromkeys(name for run in runs for name in run.curves) if INTERVAL not in name]
    measured, trained = ([name for name in names if ("train/" in name) is kind] for kind in (False, True))
    if not names:
        return ""
    legend = "".join(f"<span>{key(index)}{escape(run.name)}</span>" for index, run in enumerate(runs))
    grid = lambda chosen: f'<div class="charts">{"".join(chart(name, runs) for name in chosen)}</div>'
    folded = (f'<details{"" if measured else " open"}><summary>Losses of training ({len(trained)})</summary>'
              f"{grid(trained)}</details>")
    return (f'<h2>Curves</h2><div class="legend">{legend}</div>{grid(measured) if measured else ""}'
            f"{folded if trained else ''}")


def setting_table(comparison: Comparison) -> str:
    """The settings in which runs differ."""
    if not comparison.settings:
        return "<h2>Settings</h2><p>No setting differs, or none is known.</p>"
    head = "".join(f'<th scope="col">{escape(run.name)}</th>' for run in comparison.runs)
    text = lambda value: "–" if value is None else escape(str(value))
    rows = ["".join([f'<tr><th scope="row">{breaking(name)}</th>', *(f"<td>{text(value)}</td>" for value in values), "</tr>"])
            for name, values in comparison.settings.items()]
    return ("<h2>Settings that differ</h2><p>Everything else is the same in all runs. RUN is a run’s own folder.</p>"
            '<div class="scroll settings" tabindex="0" role="region" aria-label="Settings that differ">'
            '<table class="sortable"><caption>Settings that differ</caption><thead><tr>'
            f'<th scope="col">setting</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>')


def method(comparison: Comparison) -> str:
    """How the figures came about."""
    sources = "".join(f"<li>{escape(run.name)}: {escape(run.source)}</li>" for run in comparison.runs)
    sources = f"<details><summary>Where the runs lie</summary><ul>{sources}</ul></details>"
    if all(run.kind == "benchmark" for run in comparison.runs):
        return ("<h2>How to read it</h2><p>Milliseconds are those of all threads together, per frame. The roofline is the least time "
                "that the machine would need at its own ceilings of a matrix product and of a copy. A single run is not repeated: "
                f"measure in turns, and more than once, what differs by less than a tenth.</p>{sources}")
    pairs = [cell.change.change.clips for cells in comparison.figures.values() for cell in cells if cell.change]
    least = 2 / 2 ** min(pairs) * len(pairs) if pairs else 0.0
    few = (f" <strong>In {min(pairs)} clips this test cannot come below {2 / 2 ** min(pairs):.2g}, which is {min(1.0, least):.2g} after "
           "the correction: measure more clips, or compare fewer runs at once.</strong>" if least >= LEVEL else "")
    return ("<h2>How to read it</h2><p>Figures are of the newest validation, or of the evaluation. Intervals are percentile bootstraps "
            "over clips. A run is tested against the first on the clips that both have measured, with Wilcoxon’s signed rank test; "
            f"the {len(pairs)} tests are corrected together by Holm’s method, and a difference is called one below {LEVEL}.{few} Clips "
            f"of one person resemble each other, so that intervals over few people are narrower than they should be.</p>{sources}")
