"""The page that a person looks at before training: what was kept, what was refused and why, and faces of both."""
from __future__ import annotations

from base64 import b64encode
from collections import Counter
from dataclasses import dataclass
from html import escape
from typing import Callable, Iterable, Optional, Sequence

import numpy as np

from s3dnerf.data.cropping import cut
from s3dnerf.data.quality import MAX_BLUR
from s3dnerf.data.sync import FARTHEST
from s3dnerf.data.tracking import MAX_ERROR, MAX_YAW, MIN_EYES, Track
from s3dnerf.face import EYE_RINGS, INNER_LIPS
from s3dnerf.media import FPS

THUMBNAIL = 112
"""pixels"""
KEPT_FACES, REFUSED_FACES, PEOPLE, REMARKS = 48, 12, 60, 40
"""how many at most are shown: faces of kept clips, of clips refused for one reason, rows of people and of remarks"""
KINDS = {"check the path": "file is missing", "no sound track": "no sound", "is silent": "silent", "lasts ": "too short",
         "cuts leave": "too short between cuts", "no face": "no face", "two faces": "two faces",
         "turned away": "turned away", "pixels between": "face too small", "reprojection": "face does not fit", "blur": "blurred",
         "frames or more too": "sound out of step"}
"""what a reason says, and what it is called where reasons are counted"""
STYLE = """body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:1080px;padding:0 1em;color:#1d2530;
background:#fff}h1{font-size:1.5em;margin-bottom:.2em}h2{font-size:1.1em;margin:1.8em 0 .5em}.row{display:flex;flex-wrap:wrap;gap:14px}
.wide{column-gap:36px}.wide h2{max-width:15em}
figure{margin:0;width:116px;font-size:11px;overflow-wrap:anywhere;line-height:1.25}
figure img{width:112px;height:112px;object-fit:contain;background:#e8ebef;border-radius:4px;border:2px solid #2b6cb0}figure.no img{border-color:#c05621}
svg text{font:11px system-ui,sans-serif;fill:#1d2530}td,th{padding:2px 14px 2px 0;text-align:left;vertical-align:top}
.n{text-align:right;font-variant-numeric:tabular-nums}.bar{display:inline-block;height:.7em;background:#c05621}
.big{font-size:1.25em}.key i{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 1em}"""


@dataclass(frozen=True)
class Shown:
    """A piece as the page shows it."""

    line: dict
    """of the report"""
    picture: bytes
    """JPEG; empty where there is none"""

    @property
    def kept(self) -> bool:
        return self.line["status"] == "accepted"

    @property
    def kind(self) -> str:
        """What its reason is called; empty where there is none."""
        return kind(self.line["reason"])

    @property
    def changed(self) -> str:
        """What was done to it on the way in; empty for nothing."""
        late = int(self.line["sync_offset"] or 0)
        side = "late" if late > 0 else "early"
        moved = f"the sound was {abs(late)} frames {side}, and was moved" if late and self.kept else ""
        return "; ".join(filter(None, (self.line["remarks"], moved)))


def kind(reason: str) -> str:
    """What a reason is called where reasons are counted; empty for no reason."""
    return next((name for words, name in KINDS.items() if words in reason), "file cannot be read") if reason else ""


def thumbnail(frames: Sequence[np.ndarray], track: Optional[Track] = None) -> bytes:
    """A JPEG of the middle one of frames [H, W, 3] uint8: the crop, with what was found of eyes and lips in green, or the
    whole picture where nothing was."""
    import cv2

    middle = len(frames) // 2
    picture, factor = frames[middle], THUMBNAIL / max(frames[middle].shape[:2])
    if track is None:
        picture = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    else:
        box = track.crop_box()
        picture = cut([picture], box, THUMBNAIL)[0]
        rings = track.landmarks[middle][[*EYE_RINGS[0], *EYE_RINGS[1], *INNER_LIPS]]
        for x, y in np.round((rings - (box.left, box.top)) * (THUMBNAIL / box.side)).astype(int).tolist():
            cv2.circle(picture, (x, y), 0, (60, 230, 60), -1)
    return cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()


def summary_page(name: str, shown: Sequence[Shown]) -> str:
    """The page of a split, HTML that needs no other file."""
    kept = [one for one in shown if one.kept]
    people = {one.line["person"] for one in kept}
    seconds = sum(int(one.line["frames"]) for one in kept) / FPS
    share = 100 * len(kept) / max(1, len(shown))
    parts = [f"<h1>Prepared clips: {escape(name)}</h1>",
             f"<p class=big>{len(kept)} of {len(shown)} clips kept ({share:.0f} %), {len(people)} people, "
             f"{seconds / 60:.1f} minutes</p>", _refusals(shown), _histograms(shown)]
    if kept:
        parts.append(_faces("Kept", kept, KEPT_FACES, len(kept)))
    parts.append("<div class='row wide'>")
    for reason, count in Counter(one.kind for one in shown if not one.kept).most_common():
        parts.append(_faces(f"Refused: {reason}", [one for one in shown if one.kind == reason and not one.kept],
                            REFUSED_FACES, count))
    parts += ["</div>", _remarks(shown), _people(shown)]
    return ("<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
            f"<title>Prepared clips: {escape(name)}</title>"
            f"<style>{STYLE}</style><body>{''.join(parts)}</body></html>\n")


def _refusals(shown: Sequence[Shown]) -> str:
    counts = Counter(one.kind for one in shown if not one.kept)
    if not counts:
        return "<p>Nothing was refused.</p>"
    most = max(counts.values())
    return _table("Why clips were refused", ("reason", "clips", ""), [
        (escape(reason), str(count), f"<span class=bar style='width:{300 * count / most:.0f}px'></span>")
        for reason, count in counts.most_common()])


def _histograms(shown: Sequence[Shown]) -> str:
    yaw = lambda line: max(abs(float(degrees)) for degrees in line["yaw"].split(".."))
    column = lambda name: lambda line: float(line[name])
    charts = [("seconds", lambda line: int(line["frames"]) / FPS, None),
              ("pixels between the eyes", column("eyes"), MIN_EYES),
              ("most degrees turned away", yaw, MAX_YAW), ("reprojection error, %", column("reprojection_error"), MAX_ERROR),
              ("blur", column("blur"), MAX_BLUR), ("frames that sound is late", column("sync_offset"), None)]
    drawn = "".join(_chart(title, shown, value, limit) for title, value, limit in charts)
    return ("<h2>How they are</h2><p class=key><i style='background:#2b6cb0'></i>kept"
            "<i style='background:#c05621'></i>refused"
            f"<i style='background:#000;width:2px'></i>limit</p><div class=row>{drawn}</div>")


def _chart(title: str, shown: Sequence[Shown], value: Callable[[dict], float], limit: Optional[float]) -> str:
    """A histogram (SVG) of what `value` says of report lines; those for which it says nothing are left out."""
    told = [_told(value, one.line) for one in shown]
    split = [[number for number, one in zip(told, shown) if number is not None and one.kept is kept]
             for kept in (True, False)]
    every = split[0] + split[1] + ([limit] if limit is not None else [])
    if not split[0] + split[1]:
        return ""
    if title.startswith("frames"):
        edges = np.arange(-FARTHEST, FARTHEST + 2) - 0.5
    else:
        edges = np.linspace(min(0, *every), max(1e-6, *every) * 1.05, 21)
    kept, refused = (np.histogram(part, edges)[0] for part in split)
    high, wide = max(1, int((kept + refused).max())), 300 / (len(edges) - 1)
    bars = "".join(
        f"<rect x='{i * wide:.1f}' width='{wide - 1:.1f}' y='{100 - 90 * (a + b) / high:.1f}' height='{90 * b / high:.1f}' "
        f"fill='#c05621'/><rect x='{i * wide:.1f}' width='{wide - 1:.1f}' y='{100 - 90 * a / high:.1f}' "
        f"height='{90 * a / high:.1f}' fill='#2b6cb0'/>" for i, (a, b) in enumerate(zip(kept, refused)))
    place = 300 * ((limit if limit is not None else 0) - edges[0]) / (edges[-1] - edges[0])
    line = f"<path d='M{place:.1f} 8V100' stroke='#000' stroke-dasharray='3 3'/>" if limit is not None else ""
    return (f"<svg width=320 height=140 role=img aria-label='{title}'><g transform='translate(8 0)'>{bars}{line}"
            f"<path d='M0 100H300' stroke='#888'/><text x=0 y=114>{edges[0]:.3g}</text><text x=300 y=114 text-anchor=end>"
            f"{edges[-1]:.3g}</text><text x=150 y=132 text-anchor=middle>{title} (highest bar: {high})</text></g></svg>")


def _told(value: Callable[[dict], float], line: dict) -> Optional[float]:
    try:
        return value(line)
    except ValueError:  # an empty column
        return None


def _faces(title: str, shown: Sequence[Shown], most: int, count: int) -> str:
    """Some of the pieces that have a picture, evenly spread."""
    pictured = [one for one in shown if one.picture] or list(shown)
    some = [pictured[index] for index in np.linspace(0, len(pictured) - 1, min(most, len(pictured))).round().astype(int)]
    figures = "".join(_figure(one) for one in some)
    told = f"{count}" if len(some) == count else f"{len(some)} of {count}"
    return f"<section><h2>{escape(title)} ({told})</h2><div class=row>{figures}</div></section>"


def _figure(one: Shown) -> str:
    image = f"<img alt='' src='data:image/jpeg;base64,{b64encode(one.picture).decode()}'>" if one.picture else ""
    words = one.line["reason"] or one.line["remarks"]
    return (f"<figure{'' if one.kept else ' class=no'}>{image}<figcaption>{escape(str(one.line['file']))} "
            f"{one.line['piece']}<br>{escape(words[:120])}</figcaption></figure>")


def _remarks(shown: Sequence[Shown]) -> str:
    rows = [(escape(f"{one.line['file']} {one.line['piece']}"), escape(one.changed)) for one in shown if one.changed]
    title = f"What was converted, moved or left out ({len(rows)} clips)"
    return _table(title, ("clip", "remark"), rows[:REMARKS]) if rows else ""


def _people(shown: Sequence[Shown]) -> str:
    frames, clips, refused = Counter(), Counter(), Counter()
    for one in shown:
        (clips if one.kept else refused)[one.line["person"]] += 1
        frames[one.line["person"]] += int(one.line["frames"]) if one.kept else 0
    rows = [(escape(person), str(clips[person]), f"{count / FPS / 60:.1f}", str(refused[person]))
            for person, count in sorted(frames.items(), key=lambda item: (-item[1], item[0]))]
    return _table(f"People ({len(rows)}, the longest first)", ("person", "clips", "minutes", "refused"), rows[:PEOPLE])


def _table(title: str, heads: Iterable[str], rows: Iterable[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{name}" for name in heads)
    mark = lambda cell: "<td class=n>" if cell.replace(".", "").isdigit() else "<td>"
    body = "".join("<tr>" + "".join(mark(cell) + cell for cell in row) for row in rows)
    return f"<h2>{title}</h2><table><tr>{head}{body}</table>"
