"""Each way to fake a talking head makes the checks fail that are there for it, and the honest model passes them."""
import copy
from dataclasses import replace

import pytest
import torch

from s3dnerf.losses import crop
from s3dnerf.validation import picture, space, speech, sync
from s3dnerf.validation.scenes import Subject, film
from s3dnerf.validation.suite import examine


def rendered(fake, change):
    """Replaces what `fake` renders; `change` gets the rendering and the arguments."""
    render = fake.render
    fake.render = lambda *args, **options: change(render(*args, **options), *args, **options)


def constant_image(fake):
    rendered(fake, lambda found, *_args, **_options: replace(found, image=found.image * 0 + 0.5))


def photo_copied(fake):
    def paste(found, appearance, motion, cameras, window=None, **_options):
        photo = appearance.portrait.image[:, None].expand(-1, motion.code.shape[1], -1, -1, -1)
        return replace(found, image=photo if window is None else crop(photo, window))

    rendered(fake, paste)


def blurred(fake):
    blur = lambda image: torch.nn.functional.avg_pool2d(image.flatten(0, 1), 5, 1, 2, count_include_pad=False)[None]
    rendered(fake, lambda found, *_args, **_options: replace(found, image=blur(found.image)))


def flat_depth(fake):
    rendered(fake, lambda found, *_args, **_options: replace(found, depth=found.depth * 0 + 12))


def speech_added_to_the_picture(fake):
    def change(found, _appearance, motion, *_args, **_options):
        return replace(found, image=found.image + 0.01 * motion.code.mean())

    rendered(fake, change)


def rendering_outside_the_graph(fake):
    rendered(fake, lambda found, *_args, **_options: found.map(torch.detach))


def speech_shuffled_in_time(fake):
    drive = fake.drive
    fake.drive = lambda speech, gain=None: drive(speech[:, (torch.arange(speech.shape[1]) * 5 + 3) % speech.shape[1]], gain)


def speech_averaged(fake):
    same = lambda tokens: tokens.mean(-2, keepdim=True).expand_as(tokens)
    place = fake.speech.position
    fake.speech.code.register_forward_pre_hook(lambda _m, args: (same(args[0] - place) + place,))
    fake.deformation.register_forward_pre_hook(
        lambda _m, args: (*args[:2], replace(args[2], tokens=same(args[2].tokens)), args[3]))


def offsets_zeroed(fake):
    fake.mesh_motion.register_forward_pre_hook(
        lambda _m, args: (args[0], fake.face_code.own(args[0])[:, None].expand_as(args[1])))
    fake.deformation.register_forward_hook(lambda _m, _a, found: replace(found, offset=found.offset * 0))


def modulation_zeroed(fake):
    fake.deformation.register_forward_hook(lambda _m, _a, found: replace(found, modulation=found.modulation * 0))


def one_region_everywhere(fake):
    fake.deformation.attention = False


def slots_alike(fake):
    for parameter in (fake.fusion.keys.weight, fake.fusion.scale_embedding):
        torch.nn.init.zeros_(parameter)


def finest_planes_dropped(fake):
    fake.encoder.register_forward_hook(lambda _m, _a, planes: (planes[0] * 0, *planes[1:]))


def one_face_for_all(fake):
    fake.encoder.register_forward_hook(lambda _m, _a, planes: tuple(plane * 0 for plane in planes))


def samples_spread_evenly(fake):
    fake.renderer.importance = False


def second_look_at_the_same_places(fake):
    forward = fake.renderer.forward

    def twice(rays, field):
        coarse, fine = forward(rays, field)
        middles = coarse.samples.middles.repeat_interleave(2, -2)
        return coarse, replace(fine, samples=replace(fine.samples, middles=middles))

    fake.renderer.forward = twice


def camera_of_the_photo(fake):
    render = fake.render

    def fixed(appearance, motion, _cameras, *args, **options):
        count = motion.code.shape[1]
        cameras = appearance.portrait.cameras.map(lambda x: x[:, None].expand(-1, count, *x.shape[1:]))
        return render(appearance, motion, cameras, *args, **options)

    fake.render = fixed


CAUGHT = [
    (constant_image, speech.tokens_have_order, 1), (constant_image, space.cameras_have_gradient, 16),
    (photo_copied, speech.silence_differs_from_speech, 12), (photo_copied, speech.tokens_have_order, 1),
    (speech_averaged, speech.tokens_have_order, 1), (one_region_everywhere, speech.region_score_varies, 2),
    (slots_alike, picture.slots_weigh_scales, 3), (samples_spread_evenly, space.samples_find_the_surface, 4),
    (second_look_at_the_same_places, space.samples_find_the_surface, 5),
    (rendering_outside_the_graph, sync.sync_reaches_every_part, 6), (offsets_zeroed, speech.offsets_move_the_lips, 9),
    (modulation_zeroed, speech.parts_contribute, 10), (speech_added_to_the_picture, speech.parts_contribute, 10),
    (one_face_for_all, picture.photos_matter, 11), (camera_of_the_photo, space.cameras_turn_the_head, 12),
    (finest_planes_dropped, picture.scales_contribute, 13), (flat_depth, space.depth_is_a_faces, 15),
    (camera_of_the_photo, space.cameras_have_gradient, 16), (blurred, picture.super_resolution_sharpens, 17),
    (speech_shuffled_in_time, speech.mouth_opens_like_the_recording, 26),
    (offsets_zeroed, speech.mouth_opens_like_the_recording, 26),
]
FILMED = {speech.mouth_opens_like_the_recording, space.depth_is_a_faces, picture.super_resolution_sharpens}
"""checks that look at what was rendered before"""


class Studio:
    """Films each model once, and remembers what the honest one got."""

    def __init__(self, model, recordings, expert):
        self.recordings, self.expert, self.lines = recordings, expert, {}
        self.honest = self.subject(model, 2)

    def subject(self, model, people, filmed=True):
        scenes = [film(model, person, clip) for person, clip in self.recordings[:people]] if filmed else [
            replace(scene, appearance=self.encoded(model, scene)) for scene in self.honest.scenes[:people]]
        return Subject(model, scenes, self.expert)

    @staticmethod
    @torch.no_grad()
    def encoded(model, scene):
        return model.encode(scene.clip.portrait)

    def verdicts(self, subject, check):
        return {line.name: (line.row, line.verdict) for line in examine(subject, (check,))}

    def expected(self, check):
        if check not in self.lines:
            scenes = self.honest.scenes if check is picture.photos_matter else self.honest.scenes[:1]
            self.lines[check] = self.verdicts(replace(self.honest, scenes=scenes), check)
        return self.lines[check]


@pytest.fixture(scope="module")
def studio(model, recordings, expert):
    return Studio(model, recordings, expert)


@pytest.mark.parametrize("fake_it, check, row", CAUGHT, ids=lambda value: getattr(value, "__name__", str(value)))
def test_fakes_fail_where_the_honest_model_passes(fake_it, check, row, studio, model):
    fake = copy.deepcopy(model)
    fake_it(fake)
    people = 2 if check is picture.photos_matter else 1
    found = studio.verdicts(studio.subject(fake, people, check in FILMED), check)
    caught = [name for name, (line_row, word) in found.items()
              if line_row == row and word == "FAIL" and studio.expected(check)[name][1] == "pass"]
    assert caught, (found, studio.expected(check))
