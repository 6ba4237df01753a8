"""What several verbs check of their options, and how they write."""
from __future__ import annotations

from typing import Optional, Union

POSES = ("still", "natural")


def chosen_marks(label: Union[bool, str], consent: Optional[str], certificate: Optional[str], key: Optional[str],
                 manifest: Optional[bool], unmarked: bool):
    """The `Marks` of the options of `speak`; None with --unmarked. InputError where both are asked for."""
    from s3dnerf.errors import InputError
    from s3dnerf.marking.marks import Marks

    if unmarked and (label or consent or certificate or key or manifest):
        raise InputError("found --unmarked beside an option of the marks (--label, --consent, --certificate, --key, --manifest); "
                         "leave one of them out")
    return None if unmarked else Marks(label, consent, None, manifest, certificate, key)


def numbers(camera: str) -> tuple[float, ...]:
    """The angles and the zoom of --camera; InputError for what are no numbers."""
    from s3dnerf.errors import InputError

    try:
        return tuple(float(number) for number in camera.split(","))
    except ValueError:
        raise InputError(f"found --camera {camera}; expected two angles in degrees, right and up, and a zoom where wanted, "
                         "such as 20,0 or -15,5,1.5") from None


def check_paths(inputs: dict[str, Optional[str]], outputs: dict[str, Optional[str]]) -> None:
    """InputError, before anything is computed, for files that are missing or cannot be written; None is left aside.

    Both are paths by option. `--output` is a video; an output may not be one of the inputs.
    """
    from pathlib import Path

    from s3dnerf.errors import InputError
    from s3dnerf.media import check_file, check_output

    for option, path in inputs.items():
        if path is not None:
            kind = {"--photo": "photo", "--speech": "recording", "--background": "image"}.get(option, "video")
            check_file(path, "camera path" if kind == "video" and path.lower().endswith(".json") else kind)
    used = {Path(path).resolve(): option for option, path in inputs.items() if path is not None}
    for option, path in outputs.items():
        if path is None:
            continue
        same = used.setdefault(Path(path).resolve(), option)
        if same != option:
            raise InputError(f"{option} and {same} are the same file {path}; choose another name for {option}")
        # a small file may have any ending; its folder is what is checked
        check_output(path if option == "--output" else Path(path).with_name("any.mp4"))
        if Path(path).is_dir():
            raise InputError(f"{path} is a folder; give a file for {option}")


def write_json(content: dict, path: str) -> None:
    """Writes a JSON file that appears whole."""
    import json
    from pathlib import Path

    part = Path(path).with_name(f".{Path(path).name}.part")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def lip_matcher(weights: str):
    """What tells how well lips go with sounds (`data.sync.Matcher`), from the weights of a lip discriminator."""
    from s3dnerf.models.hub import load_lip_sync

    return load_lip_sync(weights).match
