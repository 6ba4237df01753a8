"""Verbs that make videos, and look at what goes in and comes out."""
from __future__ import annotations

from typing import List, Literal, Optional, Union

from s3dnerf.commands.options import check_paths, lip_matcher, write_json


def speak(photo: Optional[str] = None, speech: Optional[str] = None, output: str = "out.mp4", weights: str = "one-shot-256",
          frame: Optional[Literal["full", "face"]] = None, pose: str = "natural", drive: Optional[str] = None,
          mouth_gain: Optional[float] = None, camera: str = "0,0", eyes: str = "keep", background: str = "keep",
          smooth: float = 0.0, device: Literal["auto", "cpu", "cuda"] = "auto", seed: int = 0, json: Optional[str] = None,
          sheet: Optional[str] = None, quality: Literal["fast", "balanced", "best", "auto"] = "best",
          label: Union[bool, str] = False, consent: Optional[str] = None, certificate: Optional[str] = None,
          key: Optional[str] = None, manifest: Optional[bool] = None, unmarked: bool = False, identity_cache: str = "auto",
          split: int = 1, engine: Literal["local", "ray"] = "local", batch: Optional[str] = None) -> Optional[int]:
    """Makes a photo speak: one photo and a recording of speech become a video with sound.

    The video is marked as synthetic: an invisible watermark, metadata, and a signed C2PA manifest where that extra is installed
    (docs/marking.md; `s3dnerf verify` reads them).

    Example: s3dnerf speak --photo face.jpg --speech hello.wav --output out.mp4

    Args:
        photo: the photo (JPEG, PNG, WebP and the like); one face that looks at the camera works best. Left out with weights of
            `s3dnerf personalize`
        speech: any file with a sound track, a video too; may be left out when --drive is given
        output: the video to write (mp4, m4v, mov or mkv)
        weights: name of installed weights (see `s3dnerf models`), a folder, or a training checkpoint
        frame: full is the photo at its own size (at most 1080 on the long side), face is the square crop; by default full with
            a photo, and face with weights of `s3dnerf personalize`, which have no other
        pose: still, natural (small head motion and blinks), a video whose head motion is followed, or a camera path, JSON such
            as {"keys": [{"time": 0}, {"time": 2, "yaw": 15, "pitch": 5, "roll": 0, "zoom": 1.3}]} or
            {"fps": 25, "frames": [{"yaw": 0}, {"yaw": 1}]}
        drive: a video whose lips move the mouth in place of the speech
        mouth_gain: factor on the mouth's motion; the weights have their own
        camera: degrees that the camera goes around the head, to the right and up, and a zoom where wanted, such as 20,0 or
            -15,5,1.5
        eyes: keep (as --pose has them), how wide they stay, from 0, shut, to 1, as usual, or blinks a minute, such as 15/min
        background: keep, a colour such as #00ff00, or an image, behind the person
        smooth: seconds, the standard deviation of a Gaussian over which the speech's (or --drive's) lips and a followed --pose
            are averaged; 0.08 is two frames
        device: what to compute on; auto takes a CUDA device where there is one
        seed: another number gives other natural motion
        json: file for the statistics: seconds of every stage, frames per second, remarks
        sheet: picture (PNG) with the photo, where there is one, and frames of the video side by side
        quality: best is what the weights were trained for; balanced and fast leave out what is hardly seen (see
            docs/performance.md); auto is the best that keeps up with real time on this machine
        label: draws a text in the lower left corner; without a text, AI-generated
        consent: statement of the consent of the person shown, kept in the video's metadata
        certificate: PEM chain that signs the C2PA manifest, signer first; by default a development certificate of your own, made
            when it is first needed, which nobody else trusts
        key: PEM private key of --certificate
        manifest: a C2PA manifest: true asks for it, false leaves it out; by default where `pip install 's3dnerf[c2pa]'` was run
        unmarked: leaves out watermark, metadata, manifest and label, so that nobody can tell from the file that the video is
            synthetic. Showing it without saying so may be against the law; it is meant for measuring pictures
        identity_cache: folder in which encoded photos (they show faces) are kept, so that the next video of the same photo and
            weights begins sooner; auto is s3dnerf/identities in your cache folder, if you have one, off keeps none
        split: processes that render, each with its share of the cores or a CUDA device of its own; the video is the same
        engine: where they are: local is this machine, ray the cluster that RAY_ADDRESS names, or else one of this machine (`pip
            install 's3dnerf[ray]'`)
        batch: table (CSV) of videos to make, whose columns are these options and whose rows replace what is given here; see
            docs/batch.md
    """
    options = {name: value for name, value in locals().items() if name != "batch"}
    from s3dnerf.batch import Speaker, speak_batch

    if batch is not None:
        return speak_batch(options, batch)
    Speaker().make(options)


def verify(video: str, json: bool = False) -> int:
    """Reads what a video says of itself: watermark, metadata, C2PA manifest.

    Prints a line for each. The exit status is 0 where one of them says that the video is synthetic, 1 where none does.

    Args:
        video: the video; it may have been compressed, cropped or resized since, which the watermark survives
        json: prints JSON in place of lines
    """
    from json import dumps

    from s3dnerf.marking.verify import verify as run

    found = run(video, progress=True)
    print(dumps(found.as_dict(), indent=1) if json else "\n".join(found.lines()))
    return int(not found.marked)


def doctor(photo: Optional[str] = None, speech: Optional[str] = None, video: Optional[str] = None) -> int:
    """Checks the installation, and a photo, a recording of speech or a video, and says what to do.

    Prints a line for each thing that was looked at: good; repaired (converted on the way in, nothing to do); careful (it works,
    but better with what the line says); stop (it does not work). The exit status is 1 where a line says stop, else 0.

    Args:
        photo: a photo that is to speak: face size, turn, sharpness, light, what covers the face, several faces
        speech: a recording: rate, channels, level, clipping, silence, noise
        video: a video to follow or to learn a person from: rate, rotation, cuts, faces, sound, and whether it is in step; its
            first minute is looked at
    """
    from s3dnerf.doctor.finding import Finding, State
    from s3dnerf.doctor.installation import examine_installation

    def findings():
        found = examine_installation()
        yield from found
        if any(finding.state is State.STOP for finding in found):
            if photo or speech or video:
                yield Finding("photo, speech, video", State.STOP, "not looked at before the lines above are followed")
            return
        from s3dnerf.doctor.photo import examine_photo
        from s3dnerf.doctor.sound import examine_sound
        from s3dnerf.doctor.video import examine_video

        yield from examine_photo(photo) if photo else ()
        yield from examine_sound(speech) if speech else ()
        yield from examine_video(video, lambda: lip_matcher("one-shot-256")) if video else ()

    stopped = False
    for finding in findings():
        print(finding, flush=True)
        stopped |= finding.state is State.STOP
    return int(stopped)


def serve(host: str = "127.0.0.1", port: int = 8000, weights: str = "one-shot-256", people: Optional[str] = None,
          device: Optional[List[str]] = None, origin: Optional[List[str]] = None, folder: Optional[str] = None,
          cache: Optional[str] = None, certificate: Optional[str] = None, key: Optional[str] = None, max_seconds: float = 120.0,
          queue: int = 16, keep_minutes: float = 60.0, spare: bool = True, worker_memory: int = 4096, ray: bool = False) -> None:
    """Serves a page and an HTTP API that make videos of a photo and a voice; see docs/service.md.

    Where the environment has S3DNERF_API_KEY, every request has to bring it.

    Args:
        host: address to listen on; 127.0.0.1 is reached from this machine alone
        port: of the address
        weights: name of installed weights (see `s3dnerf models`), a folder, or a training checkpoint
        people: folder of stored people: folders of `s3dnerf personalize`, and photos
        device: auto, cpu or cuda; given several times, a worker each
        origin: another site whose pages may use the API, such as https://example.org; may be given several times
        folder: where videos lie while they live; emptied at the start. By default a temporary one
        cache: folder in which encoded photos are kept, up to 256 MB; by default they are kept in memory for a while
        certificate: as for speak: PEM chain that signs the C2PA manifest of every finished video, signer first; by default a
            development certificate
        key: PEM private key of --certificate
        max_seconds: longest speech
        queue: videos that may wait; what comes after is told to come again
        keep_minutes: after which a finished video is deleted
        spare: keeps one more worker loaded, which takes over at once where another dies
        worker_memory: MB (of 2**20 bytes) that a worker may take; one that takes more is replaced, without a pause, and beyond
            twice as much it ends at once
        ray: runs as a Ray Serve deployment, on the cluster that this machine belongs to or else on one of its own
    """
    import os

    from s3dnerf.service.server import serve as run
    from s3dnerf.service.settings import Settings

    run(Settings(weights, tuple(device or ["auto"]), folder, people, cache, os.environ.pop("S3DNERF_API_KEY", None) or None,
                 certificate, key, tuple(origin or ()), max_seconds=max_seconds, queue=queue, keep_seconds=60 * keep_minutes, spare=spare,
                 worker_bytes=worker_memory << 20),
        host, port, ray)


def benchmark(weights: str = "one-shot-256", photo: Optional[str] = None, speech: Optional[str] = None, seconds: float = 10.0,
              quality: Literal["fast", "balanced", "best", "auto"] = "best", frame: Literal["full", "face"] = "face",
              device: Literal["auto", "cpu", "cuda"] = "auto", training: Optional[List[str]] = None, steps: int = 20,
              output: Optional[str] = None) -> None:
    """Tells how fast this machine is, where the time goes, and how near that is to what the machine can do.

    The table has a row for every stage of `speak`: seconds of all threads, per frame milliseconds, operations and bytes, and the
    share of the roofline that was reached. With --training it is about training steps.

    Args:
        weights: as for speak
        photo: as for speak; by default the demonstration's
        speech: as for speak; by default the demonstration's, which is repeated
        seconds: how long the speech lasts
        quality: as for speak
        frame: as for speak
        device: as for speak
        training: what `s3dnerf fit` is given, one by one: --training configs/one_shot.yaml --training data.train=data/tiny; YAML
            files are its --config, the others its options. Measures its steps in place of speak
        steps: of training that are measured, after three to warm up
        output: JSON file for the figures
    """
    from s3dnerf.benchmark.report import run

    check_paths({"--photo": photo, "--speech": speech}, {"--output of the figures": output})
    report, text = run(weights, photo, speech, seconds, quality, frame, device, training, steps)
    if output is not None:
        write_json(report, output)
    print(text)
