"""Camera paths: files say where the camera is, keys are joined smoothly, and what is no path is named."""
import json

import numpy as np
import pytest
import torch

from s3dnerf.camera_path import CameraPath
from s3dnerf.errors import InputError
from s3dnerf.face import metric_face
from s3dnerf.geometry import frontal_camera, orbit, project

CAMERA = orbit(frontal_camera(256), torch.tensor(0.1), torch.tensor(-0.05))
FACE = torch.from_numpy(metric_face())


def written(folder, content):
    path = folder / "path.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_frame_is_what_its_entry_says(tmp_path):
    entries = [{"yaw": 3 * k, "pitch": -k, "roll": 2 * k, "zoom": 1 + 0.1 * k} for k in range(6)] + [{}]
    path = CameraPath.read(written(tmp_path, {"fps": 25, "frames": entries}))
    assert path.yaw.tolist() == pytest.approx([0, 3, 6, 9, 12, 15, 0], abs=1e-5)
    assert path.pitch[:6].tolist() == pytest.approx([0, -1, -2, -3, -4, -5], abs=1e-5) and path.roll[5] == pytest.approx(10)
    assert path.zoom.tolist() == pytest.approx([1, 1.1, 1.2, 1.3, 1.4, 1.5, 1])
    assert path.at(5, 4).yaw.tolist() == pytest.approx([15, 0, 15, 12], abs=1e-5)  # back and forth


def test_another_rate_is_converted_by_time(tmp_path):
    path = CameraPath.read(written(tmp_path, {"fps": 50, "frames": [{"yaw": k / 2} for k in range(41)]}))
    assert path.yaw.tolist() == pytest.approx(list(range(21)), abs=1e-4)


def test_keys_are_reached_without_overshoot_and_with_rest_at_the_ends(tmp_path):
    keys = [{"time": 0.4}, {"time": 1.4, "yaw": 20}, {"time": 2.4, "yaw": 20, "zoom": 2}, {"time": 4.4, "yaw": -10}]
    path = CameraPath.read(written(tmp_path, {"keys": keys}))
    assert len(path.yaw) == 111
    assert path.yaw[[10, 35, 60, 110]].tolist() == pytest.approx([0, 20, 20, -10], abs=1e-4)
    assert not path.yaw[:11].any() and (path.yaw[35:61] - 20).abs().max() < 1e-4
    assert path.yaw.max() < 20.001 and path.yaw.min() > -10.001 and path.zoom.min() > 0.9999
    steps = path.yaw.diff()
    assert (steps[10:35] > 0).all() and steps[10] < 0.2 * steps.max() and abs(steps[-1]) < 0.2 * abs(steps[60:]).max()
    assert steps.diff().abs().max() < 0.25 * steps.abs().max()


def test_a_path_of_zeros_leaves_the_camera_and_a_constant_one_is_a_fixed_camera(tmp_path):
    zero = CameraPath.read(written(tmp_path, {"frames": [{}, {}, {}]}))
    cameras = CAMERA.map(lambda x: x.expand(3, *x.shape))
    torch.testing.assert_close(zero.around(cameras).camera_to_world, cameras.camera_to_world, atol=1e-6, rtol=0)
    turned = CameraPath.read(written(tmp_path, {"keys": [{"time": 0.08, "yaw": 12, "pitch": 5}]}))
    fixed = CameraPath.fixed((12, 5)).at(0, 3)
    assert torch.equal(turned.around(cameras).camera_to_world, fixed.around(cameras).camera_to_world)
    due = orbit(CAMERA, torch.deg2rad(torch.tensor(-12.0)), torch.deg2rad(torch.tensor(5.0)))
    torch.testing.assert_close(fixed.around(cameras).camera_to_world[1], due.camera_to_world, atol=1e-5, rtol=0)


def test_a_roll_leans_the_head_clockwise_about_its_own_middle():
    path = CameraPath(*torch.tensor([0.0, 0.0, 10.0, 1.0])[:, None])
    cameras = CAMERA.map(lambda x: x[None])
    points = torch.stack([torch.zeros(3), torch.tensor([0.0, -1.0, 0.0])])
    before, after = (project(points, seen[0])[0] for seen in (cameras, path.around(cameras)))
    torch.testing.assert_close(before[0], after[0], atol=1e-3, rtol=0)
    (x0, y0), (x1, y1) = (before[1] - before[0]).tolist(), (after[1] - after[0]).tolist()
    assert np.degrees(np.arctan2(y1, x1) - np.arctan2(y0, x0)) == pytest.approx(10, abs=0.2)


def test_smoothing_takes_the_shake_out_and_keeps_the_way(tmp_path):
    draw = np.random.default_rng(0)
    entries = [{"yaw": float(yaw)} for yaw in 10 * np.sin(np.arange(200) / 40) + draw.normal(0, 1, 200)]
    path = CameraPath.read(written(tmp_path, {"frames": entries}))
    smooth = path.smoothed(0.12)
    assert smooth.yaw.diff().var() < 0.2 * path.yaw.diff().var() and path.smoothed(0.0).yaw is path.yaw
    assert (smooth.yaw - 10 * torch.sin(torch.arange(200) / 40)).abs().mean() < 0.5 and torch.allclose(smooth.zoom, path.zoom)


def test_a_camera_and_a_path_add_up_to_a_limit(tmp_path):
    path = CameraPath.read(written(tmp_path, {"frames": [{"yaw": 20, "zoom": 2}, {"yaw": -30}]}))
    both = path.shifted(CameraPath.fixed((10, 5, 1.5)))
    assert both.yaw.tolist() == [30, -20] and both.pitch.tolist() == [5, 5] and both.zoom.tolist() == [3, 1.5]
    with pytest.raises(InputError, match="together reach 50 degrees"):
        path.shifted(CameraPath.fixed((-20, 0)))


@pytest.mark.parametrize("content, told", [
    ("{", "no JSON"), ([], "no camera path"), ({"frames": []}, "no camera path"),
    ({"frames": [{}], "keys": [{}]}, "no camera path"),
    ({"frames": [{}], "speed": 2}, "no camera path"),
    ({"frames": [{}, {"jaw": 2}]}, "frame 1 has jaw; expected any of yaw"),
    ({"frames": [3]}, "frame 0 has int"), ({"frames": [{}, {"yaw": 80}]}, "frame 1: yaw is 80; expected a number from -45 to 45"),
    ({"frames": [{"zoom": 0.5}]}, "zoom is 0.5; expected a number from 1 to 4"), ({"frames": [{"yaw": "1"}]}, 'yaw is "1"'),
    ('{"frames": [{"yaw": NaN}]}', "yaw is NaN"), ({"frames": [{"yaw": True}]}, "yaw is true"),
    ({"fps": 0, "frames": [{}]}, "fps is 0; expected a number from 1 to 240"), ({"fps": 1, "frames": [{}] * 3601}, "3601"),
    ({"keys": [{"yaw": 3}]}, "key 0 has yaw; expected time and any of"), ({"keys": [{"time": -1}]}, "time is -1"),
    ({"keys": [{"time": 1}, {"time": 1}]}, "key 1 is at 1 s, after 1 s; expected ascending")])
def test_what_is_no_path_is_named(content, told, tmp_path):
    with pytest.raises(InputError) as error:
        CameraPath.read(written(tmp_path, content))
    assert told in str(error.value) and "path.json" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("camera, told", [((1.0,), "two angles"), ((1, 2, 3, 4), "two angles"), ((46, 0), "45 degrees"),
                                          ((float("nan"), 0), "two angles"), ((0, 0, 0.5), "zoom 0.5"), ((0, 0, 9), "to 4")])
def test_cameras_that_cannot_be_are_named(camera, told):
    with pytest.raises(InputError, match=told):
        CameraPath.fixed(camera)
