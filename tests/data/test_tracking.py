"""Head poses, meshes, masks and crops against known cameras and a real photo."""
import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from s3dnerf.data import tracking
from s3dnerf.data.tracking import (FOCAL, CropBox, FaceTracker, Track, cut, fit_pose, longest_run, mouth_masks,
                                   reprojection_error, segment, smooth_pose, solve_pnp)
from s3dnerf.errors import InputError
from s3dnerf.face import CROP_EXTENT, EYE_CORNERS, EYELIDS, FACE_OVAL, INNER_LIPS, RIGID, metric_face
from s3dnerf.geometry import euler_from_rotation, project, rotation_from_euler

SIZE = (480, 640)
"""height and width"""


def euler(*degrees):
    """[T, 3, 3] of rows (pitch, yaw, roll) in degrees."""
    pitch, yaw, roll = torch.tensor(np.array(degrees, float)).deg2rad().unbind(-1)
    return rotation_from_euler(pitch, yaw, roll).numpy()


def seen(rotations, translations, focal, size=SIZE):
    """Landmarks [T, 478, 2] of the metric face, written out as x' = f X / Z + c."""
    points = np.einsum("tij,nj->tni", rotations, metric_face().astype(np.float64)) + np.asarray(translations)[:, None]
    return points[..., :2] / points[..., 2:] * focal + (size[1] / 2, size[0] / 2)


POSES = euler((0, 0, 0), (15, 0, 0), (-15, 0, 0), (0, 40, 0), (0, -40, 0), (0, 0, 30), (10, -25, 15), (-12, 30, -20))
PLACES = np.array([(0, 0, 12), (1, 0.5, 12), (-1, -0.5, 11), (0.3, 0.2, 13), (0, 0, 12), (0.5, 0, 14), (-1.2, 0.4, 12),
                   (1.2, -0.8, 12)], float)


def angle(first, second):
    """[T] degrees between rotations."""
    cosine = (np.einsum("tij,tij->t", first, second) - 1) / 2
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


# --- poses -----------------------------------------------------------------------------------------------------------


def test_poses_of_a_known_camera_are_recovered():
    landmarks = seen(POSES, PLACES, 900.0)
    rotations, translations = solve_pnp(landmarks, SIZE, 900.0)
    assert angle(rotations, POSES).max() < 0.2 and np.abs(translations - PLACES).max() < 0.02
    assert reprojection_error(landmarks, SIZE, 900.0, rotations, translations).max() < 0.05


def test_poses_survive_noise_of_half_a_pixel():
    draw = np.random.default_rng(0)
    rotations, _ = solve_pnp(seen(POSES, PLACES, 900.0) + draw.normal(0, 0.5, (8, 478, 2)), SIZE, 900.0)
    assert np.median(angle(rotations, POSES)) < 2 and angle(rotations, POSES).max() < 5


def test_reprojection_error_is_in_percent_of_the_eye_distance():
    rotations, translations = np.eye(3)[None], np.array([[0, 0, 10.0]])
    landmarks = seen(rotations, translations, 1000.0) + (3.0, 4.0)  # five pixels off; the eyes are 100 pixels apart
    assert reprojection_error(landmarks, SIZE, 1000.0, rotations, translations) == pytest.approx(5.0)


def test_the_focal_length_is_found_where_perspective_shows():
    found = {}
    for focal in (2.5, 8.0):
        distance = focal * CROP_EXTENT
        places = PLACES * (1, 1, 0) + (0, 0, distance)
        landmarks = seen(POSES, places, 80 * distance)
        found[focal], rotations, _ = fit_pose(landmarks, SIZE)
        assert angle(rotations, POSES).max() < 2
    assert found[2.5] < 0.55 * found[8.0]


def test_a_flat_choice_of_focal_lengths_falls_back_to_the_usual_one():
    landmarks = seen(euler((0, 0, 0)), [(0, 0, 12)], 960.0)
    landmarks += np.random.default_rng(0).normal(0, 2, landmarks.shape)
    eyes = np.linalg.norm(landmarks[0, EYE_CORNERS[0]] - landmarks[0, EYE_CORNERS[1]])
    focal, *_ = fit_pose(landmarks, SIZE, focals=(FOCAL, FOCAL * 1.02))
    assert focal == pytest.approx(FOCAL * CROP_EXTENT * eyes)


def test_smoothing_reduces_jitter_and_keeps_what_is_smooth():
    draw, time = np.random.default_rng(0), np.linspace(0, 3, 75)
    smooth = euler(*np.stack([5 * np.sin(time), 20 * np.sin(time / 2), 0 * time], 1))
    noise = euler(*draw.normal(0, 1, (75, 3)))
    shaken, places = noise @ smooth, np.stack([time, 0 * time, 12 + 0 * time], 1)
    rotations, translations = smooth_pose(shaken, places + draw.normal(0, 0.05, (75, 3)))
    assert angle(rotations, smooth).mean() < 0.8 * angle(shaken, smooth).mean()
    jitter = lambda x: np.abs(np.diff(x, 2, axis=0)).mean()
    assert jitter(rotations) < 0.6 * jitter(shaken)
    assert np.abs(rotations @ rotations.transpose(0, 2, 1) - np.eye(3)).max() < 1e-9
    assert np.allclose(np.linalg.det(rotations), 1)
    steady, straight = smooth_pose(np.tile(POSES[6], (9, 1, 1)), places[:9])
    assert np.abs(steady - POSES[6]).max() < 1e-9 and np.abs(straight - places[:9])[2:-2].max() < 1e-9


# --- tracks ----------------------------------------------------------------------------------------------------------


def made_track(rotations=POSES, translations=PLACES, focal=900.0, size=SIZE):
    return Track(seen(rotations, translations, focal, size), rotations, translations, focal, size, np.zeros(len(rotations)))


def test_cameras_of_a_track_show_the_face_where_it_was():
    track = made_track()
    face = torch.from_numpy(metric_face()).expand(8, -1, -1)
    assert np.abs(project(face, track.cameras())[0].numpy() - track.landmarks).max() < 0.02
    box = CropBox(100.0, 50.0, 200.0)
    inside = project(face, track.cameras(box, 64))[0].numpy()
    assert np.abs(inside - (track.landmarks - (100, 50)) * 64 / 200).max() < 0.01


def test_the_mesh_projects_onto_the_landmarks_at_the_face_s_depth():
    track = made_track()
    moved = Track(track.landmarks + np.random.default_rng(0).normal(0, 4, track.landmarks.shape), track.rotations,
                  track.translations, track.focal, track.size, track.error)
    mesh = torch.from_numpy(moved.mesh()).float()
    pixels, depth = project(mesh, moved.cameras())
    assert np.abs(pixels.numpy() - moved.landmarks).max() < 0.02
    due = project(torch.from_numpy(metric_face()).expand(8, -1, -1), moved.cameras())[1]
    assert (depth - due).abs().max() < 1e-3
    assert np.abs(track.mesh() - metric_face()).max() < 1e-3


def test_yaw_unit_and_crop_box_of_a_track():
    track = made_track()
    assert np.abs(track.yaw - [0, 0, 0, 40, -40, 0, -25, 30]).max() < 1e-4
    assert np.allclose(track.unit, 900 / PLACES[:, 2])
    straight = made_track(POSES[:1], np.array([[1.0, -0.5, 12.0]]))
    box = straight.crop_box()
    assert box.side == pytest.approx(CROP_EXTENT * 900 / 12)
    assert (box.left + box.side / 2, box.top + box.side / 2) == pytest.approx((320 + 75, 240 - 37.5))
    corners = (straight.landmarks[0, list(EYE_CORNERS)] - (box.left, box.top)) / box.side
    assert np.diff(corners[:, 0])[0] == pytest.approx(1 / CROP_EXTENT, abs=0.02)


def test_positive_yaw_turns_the_nose_to_the_viewer_s_left():
    track = made_track(euler((0, 30, 0)), PLACES[:1])
    nose, eyes = track.landmarks[0, 4, 0], track.landmarks[0, list(EYE_CORNERS), 0].mean()
    assert track.yaw[0] == pytest.approx(30) and nose < eyes - 5


# --- crops and masks -------------------------------------------------------------------------------------------------


def test_a_crop_at_its_own_size_is_a_slice():
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    assert np.array_equal(cut([image], CropBox(10, 20, 32), 32)[0], image[20:52, 10:42])


def test_a_crop_beyond_the_picture_repeats_its_border():
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    crop = cut([image], CropBox(-8, -4, 32), 32)[0]
    assert np.array_equal(crop, np.pad(image, ((4, 0), (8, 0), (0, 0)), mode="edge")[:32, :32])


@pytest.mark.parametrize("side, size", [(64, 128), (64, 16), (50.5, 64), (200, 32)])
def test_crops_and_cropped_cameras_agree(side, size):
    """A bright spot lies where the crop's camera says."""
    y, x = np.mgrid[:240, :320] + 0.5
    place = np.array([150.3, 101.7])
    spot = 255 * np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * 5 ** 2))
    box = CropBox(place[0] - 0.4 * side, place[1] - 0.55 * side, side)
    crop = cut([np.repeat(spot[..., None], 3, 2).astype(np.uint8)], box, size)[0, ..., 0].astype(float)
    row, column = np.mgrid[:size, :size] + 0.5
    centre = np.array([(crop * column).sum(), (crop * row).sum()]) / crop.sum()
    assert np.abs(centre - (0.4 * size, 0.55 * size)).max() < 0.15


def test_small_crops_average_instead_of_sampling():
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    crop = cut([stripes], CropBox(0, 0, 256), 32)[0]
    assert np.abs(crop[4:-4, 4:-4].astype(int) - 127).max() < 12


def test_mouth_masks_fill_the_inner_lips():
    landmarks = np.zeros((2, 478, 2))
    angles = np.linspace(0, 2 * np.pi, len(INNER_LIPS), endpoint=False)
    for row, (height, place) in enumerate(((20, (100, 80)), (6, (130, 90)))):
        landmarks[row, list(INNER_LIPS)] = np.stack([30 * np.cos(angles), height * np.sin(angles)], 1) + place
    masks = mouth_masks(landmarks, CropBox(40, 20, 128), 256)
    y, x = np.mgrid[:64, :64] * 2 + 1.0  # mask cells are two pixels of the picture wide
    assert masks.shape == (2, 64, 64)
    for mask, height, place in zip(masks, (20, 6), ((60, 60), (90, 70))):
        ellipse = ((x - place[0]) / 30) ** 2 + ((y - place[1]) / height) ** 2 < 1
        assert (mask & ellipse).sum() / (mask | ellipse).sum() > 0.85
    landmarks[0, list(INNER_LIPS), 1] = 80
    assert mouth_masks(landmarks[:1], CropBox(40, 20, 128), 256).sum() <= 40  # closed


# --- video -----------------------------------------------------------------------------------------------------------


def follow(monkeypatch, found):
    """Tracks frames whose landmarks are given; None is a frame without a face."""
    queue = iter([found[0]] * tracking.SETTLING + list(found))
    found_in = lambda frame: [face] if (face := next(queue)) is not None else []
    monkeypatch.setattr(tracking, "FaceDetector", lambda still: nullcontext(SimpleNamespace(faces=found_in)))
    return FaceTracker().track(np.zeros((*SIZE, 3), np.uint8) for _ in found)


def moving(count):
    places = np.stack([np.linspace(0, 1, count), np.linspace(0, 0.5, count), np.full(count, 12)], 1)
    return seen(np.tile(np.eye(3), (count, 1, 1)), places, 960.0)


def test_short_gaps_are_bridged_by_a_straight_line(monkeypatch):
    due = moving(20)
    found = list(due)
    for missing in (0, 1, 6, 7, 8, 12, 18, 19):
        found[missing] = None
    track = follow(monkeypatch, found)
    assert np.abs(track.landmarks[2:18] - due[2:18]).max() < 1e-6
    assert np.array_equal(track.landmarks[:2], due[[2, 2]]) and np.array_equal(track.landmarks[18:], due[[17, 17]])
    assert track.size == SIZE and len(track.error) == 20 and track.error.max() < 3


@pytest.mark.parametrize("missing", [range(4, 8), range(4), range(16, 20), range(20)])
def test_long_gaps_are_refused(monkeypatch, missing):
    found = [None if k in missing else face for k, face in enumerate(moving(20))]
    with pytest.raises(InputError, match=f"no face in {len(missing)} of 20 frames"):
        follow(monkeypatch, found)


def test_one_face_in_a_few_frames_is_held(monkeypatch):
    face = moving(1)[0]
    assert np.array_equal(follow(monkeypatch, [None, face, None]).landmarks, np.stack([face] * 3))


def test_landmarks_are_not_damped_but_the_pose_is(monkeypatch):
    due = moving(15)
    due[7] += 20
    track = follow(monkeypatch, list(due))
    assert np.array_equal(track.landmarks, due)
    jump = np.diff(track.translations[:, 0] * track.unit)
    assert jump.max() < 18  # of the 25 pixels of one landmark set gone astray


def test_no_frames_are_no_video():
    with pytest.raises(InputError, match="no frames"):
        FaceTracker().track([])


def test_longest_run():
    runs = {(): 0, (0, 0): 0, (1,): 1, (1, 1, 0, 1): 2, (0, 1, 0, 1, 1, 1): 3, (1, 1, 0, 0): 2}
    assert [longest_run(np.array(flags, bool)) for flags in runs] == list(runs.values())


# --- a real photo ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def astronaut():
    from skimage.data import astronaut

    return astronaut()


@pytest.fixture(scope="module")
def portrait(astronaut):
    return FaceTracker().portrait(astronaut)


def test_the_portrait_is_the_head_of_the_photo(astronaut, portrait):
    found, box, remarks = portrait
    assert remarks == [] and found.image.shape == (3, 256, 256) and found.mask.shape == (1, 256, 256)
    centre = (box.left + box.side / 2, box.top + box.side / 2)
    assert 210 < centre[0] < 240 and 100 < centre[1] < 140  # her nose's bridge is at about (224, 112)
    assert 150 < box.side < 190
    assert np.array_equal((found.image * 255).round().byte().permute(1, 2, 0).numpy(), cut([astronaut], box, 256)[0])
    assert 0 <= found.image.min() and found.image.max() <= 1 and 0 <= found.mask.min() and found.mask.max() <= 1


def test_the_first_frame_of_a_recording_is_seen_as_the_others_are(astronaut):
    """The face mesh moves its landmarks when it begins to follow a face that it has only detected."""
    first, second = FaceTracker().look([astronaut[:256, 96:352]] * 2).landmarks
    assert np.linalg.norm(first - second, axis=1).mean() < 0.35


def test_a_photo_taken_in_a_blink_is_told(portrait):
    mesh, (mask, box) = portrait[0].mesh.clone(), (np.zeros((64, 64), bool), portrait[1])
    assert tracking.photo_remarks(mesh, mask, box) == []
    mesh[list(EYELIDS[0::2])] = mesh[list(EYELIDS[1::2])] - torch.tensor([0, 0.03, 0])
    assert "the eyes are shut" in " ".join(tracking.photo_remarks(mesh, mask, box))


@pytest.mark.parametrize("rows, told", [(0, 0), (70, 1)])
def test_a_photo_that_cuts_the_head_off_at_the_top_is_told(astronaut, rows, told):
    remarks = FaceTracker().portrait(astronaut[rows:])[2]
    assert len(remarks) == told and all("cuts the head off" in remark and "sinks" in remark for remark in remarks)


def test_the_portrait_s_camera_sees_the_face_frontally_in_the_middle(portrait):
    found = portrait[0]
    pitch, yaw, roll = (float(x.rad2deg()) for x in euler_from_rotation(found.cameras.camera_to_world[:3, :3].T))
    assert abs(yaw) < 10 and abs(pitch) < 20 and abs(roll) < 15
    face = project(torch.from_numpy(metric_face()), found.cameras)[0]
    observed = project(found.mesh, found.cameras)[0]
    assert (face - observed)[list(RIGID)].norm(dim=1).mean() < 0.06 * 256 / CROP_EXTENT
    assert found.cameras.intrinsics[0, 0] == pytest.approx(FOCAL * 256, rel=0.15)
    assert project(torch.zeros(1, 3), found.cameras)[0][0].tolist() == pytest.approx([128, 128], abs=0.1)


def test_the_portrait_s_landmarks_lie_on_what_they_name(portrait):
    """Irises are darker than the cheeks beside the nose; lips are redder than the bridge of the nose."""
    found = portrait[0]
    pixels = project(found.mesh, found.cameras)[0].long()
    colour = lambda index: found.image[:, pixels[index, 1] - 1:pixels[index, 1] + 2, pixels[index, 0] - 1:pixels[index, 0] + 2]
    bright = lambda index: float(colour(index).mean())
    redness = lambda index: float((colour(index)[0] / colour(index)[1]).mean())
    assert max(bright(468), bright(473)) < 0.75 * min(bright(50), bright(280))
    assert min(redness(17), redness(0)) > 1.02 * redness(6)


def test_the_mask_holds_the_head_and_not_the_suit(portrait):
    found = portrait[0]
    mask = found.mask[0] > 0.5
    oval = project(found.mesh, found.cameras)[0][list(FACE_OVAL)].mean(0).long()
    assert mask[oval[1], oval[0]] and 0.3 < mask.float().mean() < 0.7
    inside = project(found.mesh[:468], found.cameras)[0].long()
    assert mask[inside[:, 1], inside[:, 0]].float().mean() > 0.97
    assert not mask[-1].any() and not mask[0, :20].any()  # suit; flag


def test_a_mirrored_photo_gives_a_mirrored_portrait(astronaut, portrait):
    found = portrait[0]
    other, box, _ = FaceTracker().portrait(np.ascontiguousarray(astronaut[:, ::-1]))
    assert box.left + box.side == pytest.approx(512 - portrait[1].left, abs=6) and box.side == pytest.approx(
        portrait[1].side, rel=0.05)
    yaw = [float(euler_from_rotation(x.cameras.camera_to_world[:3, :3].T)[1].rad2deg()) for x in (found, other)]
    assert yaw[0] + yaw[1] == pytest.approx(0, abs=3)
    mirrored = other.mask.flip(-1) > 0.5
    assert ((found.mask > 0.5) & mirrored).sum() / ((found.mask > 0.5) | mirrored).sum() > 0.9


def test_a_larger_photo_gives_the_same_portrait(astronaut, portrait):
    large = np.repeat(np.repeat(astronaut, 2, 0), 2, 1)
    found, box, _ = FaceTracker().portrait(large, size=64)
    assert np.abs(np.array([box.left, box.top, box.side]) / 2
                  - [portrait[1].left, portrait[1].top, portrait[1].side]).max() < 3
    assert found.image.shape == (3, 64, 64)
    assert (found.mesh - portrait[0].mesh).norm(dim=1).mean() < 0.03


def test_head_and_torso_are_apart(astronaut):
    frames = [astronaut] * 2
    track = FaceTracker().track(frames)
    box = track.crop_box()
    head, torso = segment(cut(frames, box, 256), track, box, 256)
    assert head.shape == torso.shape == (2, 64, 64) and not (head & torso).any()
    oval = ((track.landmarks[0, list(FACE_OVAL)] - (box.left, box.top)) * 64 / box.side).astype(int)
    assert torso[:, -4:].mean() > 0.5 and not head[:, -1].any()
    assert head[:, oval[:, 1], oval[:, 0]].mean() > 0.9 and not torso[:, oval[:, 1], oval[:, 0]].any()


def test_photos_without_a_face_say_so():
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    for image in (np.zeros((256, 256, 3), np.uint8), noise):
        with pytest.raises(InputError, match="no face was found"):
            FaceTracker().portrait(image)


def test_the_largest_of_several_faces_is_taken(astronaut):
    import cv2

    head = astronaut[:256, 96:352]
    small = cv2.resize(head, None, fx=0.65, fy=0.65, interpolation=cv2.INTER_AREA)
    rows = np.pad(small, ((0, 256 - len(small)), (0, 0), (0, 0)), constant_values=90)
    for image, left in ((np.hstack([head, rows]), 0), (np.hstack([rows, head]), len(small))):
        _, box, remarks = FaceTracker().portrait(image)
        assert remarks == ["found 2 faces, took the largest"]
        assert abs(box.left + box.side / 2 - left - 128) < 12 and 150 < box.side < 190


@pytest.mark.parametrize("yaw, focal, words", [(60, 960.0, "turned away by (58|59|60) degrees"),
                                               (-50, 960.0, "turned away by (49|50)"),
                                               (0, 240.0, "too small: 20 pixels")])
def test_faces_that_cannot_be_used_say_why(monkeypatch, yaw, focal, words):
    face = seen(euler((0, yaw, 0)), [(0, 0, 12)], focal)[0]
    monkeypatch.setattr(tracking, "FaceDetector", lambda still: nullcontext(SimpleNamespace(all_faces=lambda image: [face])))
    with pytest.raises(InputError, match=words):
        FaceTracker().portrait(np.zeros((*SIZE, 3), np.uint8))


def test_a_face_that_moves_is_followed(astronaut):
    frames = [np.roll(astronaut, (k, 2 * k), (0, 1))[:400] for k in range(10)]
    track = FaceTracker().track(iter(frames))
    centre = track.landmarks.mean(1) - np.arange(10)[:, None] * (2, 1)
    assert np.abs(centre - centre.mean(0)).max() < 3 and track.error.max() < 6 and np.abs(track.yaw).max() < 10


def test_tracking_is_silent_and_errors_are_not():
    script = """
import sys
import numpy as np
from skimage.data import astronaut
from s3dnerf.data.tracking import FaceTracker
FaceTracker().portrait(astronaut())
FaceTracker().track([astronaut()] * 2)
print("heard", file=sys.stderr)
FaceTracker().portrait(np.zeros((64, 64, 3), np.uint8))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    first, *rest = done.stderr.splitlines()
    assert done.stdout == "" and first == "heard" and rest[0].startswith("Traceback") and "no face was found" in rest[-1]
    assert done.returncode == 1


def test_nothing_stays_open(astronaut):
    import os

    FaceTracker().track([astronaut])
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(3):
        FaceTracker().track([astronaut])
        with pytest.raises(InputError):
            FaceTracker().portrait(np.zeros((64, 64, 3), np.uint8))
    assert (len(os.listdir("/proc/self/fd")) if before else 0) == before
