"""What the suite measures: every figure's name, title, which way is better, and the network that it needs."""
from __future__ import annotations

from dataclasses import dataclass

from s3dnerf.evaluation.protocol import REGIONS


@dataclass(frozen=True)
class Figure:
    """One column of the report."""

    title: str
    """with its unit"""
    better: str
    """up, down, 0, 1, or truth (as the recording has it)"""
    network: str = ""
    """of `Networks`, without which it is missing; action_units stands for OpenFace's output"""


WHERE = dict(zip(REGIONS, ("", " of the face", " of the mouth")))
PICTURE = {"psnr": ("PSNR{}, dB", "up", ""), "ssim": ("SSIM{}, uniform 7 x 7", "up", ""),
           "ssim_gaussian": ("SSIM{}, Gaussian 11 x 11", "up", ""), "lpips": ("LPIPS{}, Alex", "down", "alexnet"),
           "sharpness": ("sharpness{} over the recording's", "1", ""), "cpbd": ("CPBD{}", "truth", ""),
           "cpbd_truth": ("CPBD{} of the recording", "", "")}
WHOLE = {"fid": ("FID{}", "down", "inception"), "kid": ("KID{}", "down", "inception")}
"""figures of all frames together"""


def _sync(prefix: str, title: str, network: str) -> dict[str, Figure]:
    """Confidence, distance and offset, of the video and of the recording."""
    found = {}
    for ending, whose in (("", ""), ("_truth", " of the recording")):
        found |= {f"{prefix}_c{ending}": Figure(f"Sync-C{whose}, {title}", "" if whose else "up", network),
                  f"{prefix}_d{ending}": Figure(f"Sync-D{whose}, {title}", "" if whose else "down", network),
                  f"{prefix}_offset{ending}": Figure(f"offset{whose}, frames, {title}", "" if whose else "0", network)}
    return found


def _regions(table: dict) -> dict[str, Figure]:
    return {f"{name}{region}": Figure(title.format(WHERE[region]), better, network)
            for name, (title, better, network) in table.items() for region in REGIONS}


CLIP_FIGURES = {
    **_regions(PICTURE),
    "flicker": Figure("flicker outside the face, grey levels", "down"),
    "faces": Figure("share of frames with a face", "1"),
    "f_lmd": Figure("F-LMD, pixels of 256", "down"), "m_lmd": Figure("M-LMD, pixels of 256", "down"),
    "f_lmd_percent": Figure("F-LMD, percent of the eye distance", "down"),
    "m_lmd_percent": Figure("M-LMD, percent of the eye distance", "down"),
    "lmd_centred": Figure("LMD as RAD-NeRF has it, pixels", "down"),
    "mouth_correlation": Figure("mouth opening, correlation with the recording", "up"),
    "mouth_spread": Figure("spread of the mouth opening over the recording's", "1"),
    "jitter": Figure("jerk of the mouth, percent of the eye distance / frame^3", "truth"),
    "jitter_truth": Figure("jerk of the recording's mouth", ""),
    "blinks": Figure("blinks per minute", "truth"), "blinks_truth": Figure("blinks per minute of the recording", ""),
    "csim": Figure("CSIM with the recording, ArcFace", "up", "arcface"),
    "csim_photo": Figure("CSIM with the recording's first frame, ArcFace", "up", "arcface"),
    **_sync("sync", "SyncNet v2", "syncnet"), **_sync("judge", "judging expert", "judge"),
    "aue": Figure("AUE, all units", "down", "action_units"),
    "aue_lower": Figure("AUE, lower face", "down", "action_units"),
    "aue_upper": Figure("AUE, upper face", "down", "action_units")}
WHOLE_FIGURES = _regions(WHOLE)
FIGURES = CLIP_FIGURES | WHOLE_FIGURES
