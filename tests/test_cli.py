"""The command line: help, options, every bad input as one line, signals; through `main` and as a process."""
import json
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import time
import wave
import zlib
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s3dnerf.cli import main, mistake
from s3dnerf.commands import VERBS
from s3dnerf.media import VideoWriter, read_frames, read_sound
from s3dnerf.models.hub import DEFAULT, save_model

ROOT = Path(__file__).parent.parent
PHOTO, SPEECH = (str(files("s3dnerf") / "assets" / name) for name in ("demo_photo.jpg", "demo_speech.wav"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory, tiny_head):
    folder = tmp_path_factory.mktemp("weights")
    save_model(tiny_head, folder)
    return str(folder)


def write_wav(path, sound):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, len(sound), "NONE", ""))
        file.writeframes((np.asarray(sound) * 32767).astype("<i2").tobytes())
    return str(path)


def nan_wav(path):
    content = np.full(16000, np.nan, "<f4").tobytes()
    header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(content), b"WAVE", b"fmt ", 16, 3, 1, 16000, 64000, 4,
                         32, b"data", len(content))
    path.write_bytes(header + content)
    return str(path)


def billion_pixels(path):
    """A PNG whose header promises 40000 x 40000 pixels."""
    chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 40000, 40000, 8, 2, 0, 0, 0))
                     + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""))
    return str(path)


def written(path, content):
    path.write_bytes(content)
    return str(path)


def picture(path, image):
    Image.fromarray(image).save(path)
    return str(path)


def silent_film(path):
    with VideoWriter(path, 64, 64) as writer:
        for _ in range(10):
            writer.write(np.full((64, 64, 3), 90, np.uint8))
    return str(path)


def small_face(path):
    with Image.open(PHOTO) as image:
        image.resize((130, 130)).save(path)
    return str(path)


CASES = {
    "missing photo": lambda d: ({"photo": str(d / "nobody.jpg")}, "nobody.jpg"),
    "empty photo": lambda d: ({"photo": written(d / "a.jpg", b"")}, "empty"),
    "folder as photo": lambda d: ({"photo": str(d)}, "folder"),
    "truncated photo": lambda d: ({"photo": written(d / "a.jpg", Path(PHOTO).read_bytes()[:9000])}, "damaged"),
    "text as photo": lambda d: ({"photo": written(d / "a.jpg", b"dear diary\n" * 50)}, "not an image"),
    "a billion pixels": lambda d: ({"photo": billion_pixels(d / "a.png")}, "pixels"),
    "no face": lambda d: ({"photo": picture(d / "a.png", np.full((300, 300, 3), 128, np.uint8))}, "no face"),
    "face too small": lambda d: ({"photo": small_face(d / "a.png")}, "too small"),
    "missing speech": lambda d: ({"speech": str(d / "nothing.wav")}, "nothing.wav"),
    "empty speech": lambda d: ({"speech": written(d / "a.wav", b"")}, "empty"),
    "text as speech": lambda d: ({"speech": written(d / "a.wav", b"dear diary\n" * 50)}, "a.wav"),
    "short speech": lambda d: ({"speech": write_wav(d / "a.wav", np.zeros(1600))}, "0.10 s"),
    "speech that is no number": lambda d: ({"speech": nan_wav(d / "a.wav")}, "NaN"),
    "video without sound": lambda d: ({"speech": silent_film(d / "a.mp4")}, "no sound track"),
    "recording without a face": lambda d: ({"pose": silent_film(d / "a.mp4")}, "no face"),
    "missing recording": lambda d: ({"pose": str(d / "nod.mp4")}, "nod.mp4"),
    "missing driver": lambda d: ({"drive": str(d / "lips.mp4")}, "lips.mp4"),
    "no speech at all": lambda d: ({"speech": None}, "--drive"),
    "no such folder": lambda d: ({"output": str(d / "nowhere" / "out.mp4")}, "nowhere"),
    "no video's name": lambda d: ({"output": str(d / "out.txt")}, ".mp4"),
    "folder as output": lambda d: ({"output": str(d / "folder.mp4")}, "folder"),
    "output over the photo": lambda d: ({"sheet": PHOTO}, "same file"),
    "no folder for the sheet": lambda d: ({"sheet": str(d / "nowhere" / "a.png")}, "nowhere"),
    "no folder for the statistics": lambda d: ({"json": str(d / "nowhere" / "a.json")}, "nowhere"),
    "unknown weights": lambda d: ({"weights": "two-shot"}, "two-shot"),
    "unknown frame": lambda d: ({"frame": "half"}, "full"),
    "unknown device": lambda d: ({"device": "tpu"}, "cpu"),
    "seed that is no number": lambda d: ({"seed": "x"}, "--seed"),
    "camera": lambda d: ({"camera": "left"}, "two angles"),
    "negative gain": lambda d: ({"mouth-gain": "-1"}, "gain"),
    "zoom out": lambda d: ({"camera": "0,0,0.5"}, "zoom 0.5"),
    "eyes": lambda d: ({"eyes": "15/hour"}, "15/min"),
    "background": lambda d: ({"background": "green"}, "#00ff00"),
    "text as background": lambda d: ({"background": written(d / "a.jpg", b"dear diary\n" * 50)}, "not an image"),
    "output over the background": lambda d: ({"background": PHOTO, "sheet": PHOTO}, "same file"),
    "smooth": lambda d: ({"smooth": "-1"}, "seconds"),
    "missing path": lambda d: ({"pose": str(d / "nod.json")}, "no camera path"),
    "no path": lambda d: ({"pose": written(d / "nod.json", b"[1, 2]")}, "keys"),
}


def command(folder, bundle, **changes):
    options = {"photo": PHOTO, "speech": SPEECH, "output": str(folder / "out.mp4"), "weights": bundle} | changes
    return ["speak", *(word for name, value in options.items() if value is not None for word in (f"--{name}", value))]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_bad_input_is_one_line_and_status_2(case, weights, tmp_path, capfd):
    (tmp_path / "folder.mp4").mkdir()
    changes, word = case(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    capfd.readouterr()
    assert main(command(tmp_path, weights, **changes)) == 2
    said = capfd.readouterr()
    assert said.err.count("\n") == 1 and said.err.startswith("s3dnerf: ") and word in said.err and not said.out
    assert "Traceback" not in said.err and sorted(tmp_path.rglob("*")) == before


def test_a_face_that_looks_away_is_one_line(weights, tmp_path, capfd, monkeypatch):
    from s3dnerf.data import tracking

    monkeypatch.setattr(tracking, "MAX_YAW", 0.01)
    assert main(command(tmp_path, weights)) == 2
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and "turned away" in said and not list(tmp_path.iterdir())


def test_outputs_and_weights_are_checked_before_the_work(weights, tmp_path, monkeypatch, capfd):
    import s3dnerf.data.tracking

    def work(*_args, **_options):
        raise AssertionError("the work has started")

    monkeypatch.setattr(s3dnerf.data.tracking.FaceTracker, "portrait", work)
    for changes in ({"output": "/nowhere/out.mp4"}, {"weights": "two-shot"}, {"json": "/nowhere/a.json"}):
        assert main(command(tmp_path, weights, **changes)) == 2
    assert capfd.readouterr().err.count("\n") == 3


def test_the_whole_way(weights, tmp_path, capfd):
    speech = write_wav(tmp_path / "a.wav", read_sound(SPEECH)[:16000])
    assert main(command(tmp_path, weights, speech=speech, json=str(tmp_path / "a.json"), sheet=str(tmp_path / "a.png"),
                        seed="3")) == 0
    said = capfd.readouterr()
    count = 25
    found = json.loads((tmp_path / "a.json").read_text())
    assert f"{count} frames, 512 x 512" in said.out and found["frames"] == count
    assert found["weights"] == weights and found["seed"] == 3 and found["seconds"]["load"] > 0
    assert sum(1 for _ in read_frames(tmp_path / "out.mp4")) == count
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.png", "a.wav", "out.mp4"]
    assert all("frames" in line or "note" in line for line in said.err.splitlines())


def test_silence_is_spoken_with_a_note(weights, tmp_path, capfd):
    assert main(command(tmp_path, weights, speech=write_wav(tmp_path / "a.wav", np.zeros(8000)))) == 0
    said = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("rendering: ")]
    assert said == ["s3dnerf: note: the speech is silent; the mouth stays still"]


def run(*words, **options):
    return subprocess.run([sys.executable, "-m", "s3dnerf", *words], cwd=ROOT, capture_output=True, text=True,
                          timeout=400, **options)


@pytest.mark.parametrize("case", ["no face", "unknown weights", "speech that is no number"])
def test_as_a_process_the_terminal_gets_one_line(case, weights, tmp_path):
    changes, word = CASES[case](tmp_path)
    found = run(*command(tmp_path, weights, **changes))
    assert found.returncode == 2 and found.stdout == ""
    assert found.stderr.count("\n") == 1 and word in found.stderr
    assert not (tmp_path / "out.mp4").exists()


def test_success_says_nothing_on_stderr_but_progress(weights, tmp_path):
    found = run(*command(tmp_path, weights, speech=write_wav(tmp_path / "a.wav", np.full(8000, 0.1))))
    assert found.returncode == 0 and found.stdout.count("\n") == 1
    assert all(line.startswith("rendering: ") for line in found.stderr.splitlines())


@pytest.mark.parametrize("number,status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_runs_leave_nothing(number, status, weights, tmp_path):
    speech = write_wav(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 16000 * 120))
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it from the start
    process = subprocess.Popen([sys.executable, "-m", "s3dnerf", *command(tmp_path, weights, speech=speech)], cwd=ROOT,
                               stderr=subprocess.PIPE, text=True, preexec_fn=heed)
    deadline = time.monotonic() + 240
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:  # the part that is being written
        time.sleep(0.05)
    time.sleep(0.5)
    assert process.poll() is None and len(list(tmp_path.iterdir())) == 2
    process.send_signal(number)
    said = process.communicate(timeout=240)[1]
    assert process.returncode == status
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"] and "Traceback" not in said


def test_help_comes_at_once_and_without_pytorch():
    def used():
        """Processor time of the processes so far: others may hold the machine up."""
        return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])

    begin = used()
    assert subprocess.run([sys.executable, "-c", "import torch"]).returncode == 0
    long = used() - begin
    for words in ((), ("--help",), ("speak", "--help")):
        begin = used()
        found = run(*words)
        assert used() - begin < 0.5 * long
        assert found.returncode == 0 and not found.stderr
        assert "s3dnerf speak --photo face.jpg --speech hello.wav --output out.mp4" in " ".join(found.stdout.split())
    code = "import sys; from s3dnerf.cli import main; main(['speak', '--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True).returncode == 0


def test_every_verb_is_in_the_overview_and_has_help_for_every_option(capsys):
    assert main([]) == 0
    overview = capsys.readouterr().out
    for word in [*VERBS, "fit", "validate", "test", "predict"]:
        assert re.search(rf"^  {word} +[A-Z].*\.?$", overview, re.M)
    for verb, function in VERBS.items():
        assert main([verb, "--help"]) == 0
        text = capsys.readouterr().out
        options = re.split(r"\n  (?=-)", text.split("options:")[1])
        assert len(options) >= 1 + len(function.__annotations__) - 1
        for option in options[1:]:
            told = re.sub(r"\((required|type|default).*", "", " ".join(option.split()[1:]), flags=re.S)
            assert len(told.split()) >= 2, f"{verb}: {option} is not explained"


def test_the_default_weights_of_speak_are_the_hubs():
    import inspect

    assert inspect.signature(VERBS["speak"]).parameters["weights"].default == DEFAULT


@pytest.mark.parametrize("words,told", [
    (["speek"], "no verb 'speek'"), (["speak"], "missing --photo"), (["speak", "--foto", "a"], "did you mean --photo?"),
    (["speak", "--photo", "a", "--mouth-gian", "2"], "did you mean --mouth-gain?"),
    (["speak", "--photo", PHOTO, "--camera", "-15,x"], "found --camera -15,x; expected two angles"),
    (["speak", "--photo"], "--photo"), (["prepare", "--manifest", "a"], "missing --videos, --output"),
    (["prepare", "--manifest", "a", "--videos", "b", "--output", "c", "--lip-sync", "nowhere"], "no weights 'nowhere'"),
    (["prepare", "--manifest", "a", "--videos", "b", "--output", "c", "--lip-sync", "none"], "no manifest a"),
    (["synthesize", "--output", "a", "--people", "many"], "--people: expected an int"),
    (["fit", "--config", "nowhere.yaml"], "nowhere.yaml"), (["fit"], "missing --data, --model"),
    (["fit", "--trainer.max_stepz", "3"], "max_stepz")])
def test_mistakes_in_options_are_one_line(words, told, capfd):
    assert main(words) == 2
    said = capfd.readouterr().err
    assert told in said and said.count("\n") == 1 and len(said) < 300


def test_a_misspelt_key_of_a_configuration_is_named(tmp_path, capfd):
    path = tmp_path / "a.yaml"
    path.write_text("model: {class_path: LipSyncSystem, init_args: {model: {class_path: "
                    "s3dnerf.networks.lip_sync.LipSyncDiscriminator, init_args: {widht: 3}}}}\n"
                    "data: {class_path: ClipDataModule, init_args: {train: a}}\n")
    assert main(["fit", "--config", str(path)]) == 2
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "Option 'widht' is not accepted by LipSyncDiscriminator; did you mean width?" in said


def test_messages_of_another_shape_keep_their_last_line():
    assert mistake("something\n  quite new\n") == "quite new; see --help"


def test_the_environment_is_left_as_it_was(weights, tmp_path):
    before = signal.getsignal(signal.SIGTERM), dict(os.environ)
    main(command(tmp_path, weights, frame="half"))
    main(command(tmp_path, weights, photo=str(tmp_path / "nobody.jpg")))
    assert (signal.getsignal(signal.SIGTERM), dict(os.environ)) == before


def test_a_termination_that_a_callback_swallows_comes_again():
    program = ("import time\nfrom s3dnerf.cli import Terminated, _polite_end\n"
               "try:\n    with _polite_end():\n        print('ready', flush=True)\n"
               "        try:\n            time.sleep(60)\n        except Terminated:\n            pass\n        time.sleep(60)\n"
               "except Terminated:\n    print('ended')")
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.communicate(timeout=240)[0] == "ended\n"
