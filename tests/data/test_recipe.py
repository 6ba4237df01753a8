"""Recipes: the four that there are, what they say of names, and what is wrong with one."""
import csv
import re
from pathlib import Path

import pytest

from s3dnerf.data.recipe import Recipe, list_clips
from s3dnerf.errors import DatasetError, InputError

DATASETS = Path(__file__).parents[2] / "datasets"
SETS = sorted(path.parent.name for path in DATASETS.glob("*/recipe.yaml"))


@pytest.mark.parametrize("name", ["hdtf", "mead", "person", "synthetic"])
def test_every_set_has_a_card_and_a_recipe_of_one_schema(name):
    recipe, card = Recipe.read(DATASETS / name / "recipe.yaml"), (DATASETS / name / "README.md").read_text()
    assert recipe.name == name and SETS == ["hdtf", "mead", "person", "synthetic"]
    for part in ("What.", "Counts", "Licence and consent.", "Get", "repare."):
        assert re.search(rf"\*\*[^*]*{re.escape(part)}", card), part
    assert f"({name}/README.md)" in (DATASETS / "README.md").read_text()
    people = [person for split in recipe.held_out.values() for person in split]
    assert len(people) == len(set(people))


@pytest.mark.parametrize("name, file, person, split, more", [
    ("hdtf", "WDA_AmyKlobuchar0_000.mp4", "AmyKlobuchar", "train", {"take": "000"}),
    ("hdtf", "WDA_AmyKlobuchar1_003.mp4", "AmyKlobuchar", "train", {"take": "003"}),
    ("hdtf", "WDA_LucilleRoybal-Allard_000.mp4", "LucilleRoybal-Allard", "train", {}),
    ("hdtf", "WDA_WhipJimClyburn_000.mp4", "JamesClyburn", "train", {}),
    ("hdtf", "RD_Radio34_009.mp4", "Radio34", "train", {}),
    ("hdtf", "WRA_EricCantor_000.mp4", "EricCantor", "test", {}), ("hdtf", "WDA_TedLieu_000.mp4", "TedLieu", "val", {}),
    ("mead", "M003/video/left_30/happy/level_2/001.mp4", "M003", "test",
     {"view": "left_30", "emotion": "happy", "level": "2", "take": "001"}),
    ("mead", "W015/video/down/neutral/level_1/040.mp4", "W015", "val", {"view": "down"}),
    ("person", "ann/val/holiday.mov", "ann", "val", {"take": "holiday"}), ("person", "ann/train/a.b.mp4", "ann", "train", {}),
    ("synthetic", "synthetic_p001_003-000.mp4", "synthetic_p001_003", "val", {"take": "000"}),
    ("synthetic", "synthetic_p000_003-000.mp4", "synthetic_p000_003", "train", {})])
def test_names_say_who_it_is_and_the_split_goes_by_person(tmp_path, name, file, person, split, more):
    row = Recipe.read(DATASETS / name / "recipe.yaml").row(file, tmp_path)
    assert (row["file"], row["person"], row["split"], row["source"]) == (file, person, split, name)
    assert row | more == row


def test_all_seven_views_of_mead_are_heard_and_brought_into_step_by_the_front_one(tmp_path):
    place = "M005/video/{}/surprised/level_3/012.mp4"
    views = ("down", "front", "left_30", "left_60", "right_30", "right_60", "top")
    for view in views:
        (tmp_path / place.format(view)).parent.mkdir(parents=True)
        (tmp_path / place.format(view)).write_bytes(b"")
    rows, left = Recipe.read(DATASETS / "mead" / "recipe.yaml").rows(tmp_path)
    assert [row["view"] for row in rows] == list(views) and not left
    for row in rows:
        assert row["in_step_with"] == place.format("front") and row["sound"] == "M005/audio/surprised/level_3/012.m4a"
        assert (row["person"], row["emotion"], row["level"], row["take"]) == ("M005", "surprised", "3", "012")


@pytest.mark.parametrize("name, file", [("hdtf", "XX_Ann_000.mp4"), ("hdtf", "WDA_Ann.mp4"), ("hdtf", "coverage.tsv"),
                                        ("mead", "M003/audio/happy/level_2/001.m4a"), ("mead", "X003/video/front/happy/level_2/001.mp4"),
                                        ("person", "ann/holiday.mp4"), ("synthetic", "synthetic_p000_003-000.wav")])
def test_other_files_are_no_clips(tmp_path, name, file):
    assert Recipe.read(DATASETS / name / "recipe.yaml").row(file, tmp_path) is None


def test_a_folder_becomes_a_manifest(tmp_path, capsys):
    for file in ("ann/train/one.mp4", "ann/val/two.mp4", "bob/train/x.mov", "bob/stray.mp4", ".trash/ann/train/y.mp4", "notes.txt"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"")
    list_clips(DATASETS / "person" / "recipe.yaml", tmp_path, tmp_path / "out.tsv")
    with (tmp_path / "out.tsv").open() as file:
        rows = [(row["file"], row["person"], row["split"], row["source"], row["take"]) for row in csv.DictReader(file, delimiter="\t")]
    assert rows == [("ann/train/one.mp4", "ann", "train", "person", "one"), ("ann/val/two.mp4", "ann", "val", "person", "two"),
                    ("bob/train/x.mov", "bob", "train", "person", "x")]
    assert "train 2 clips of 2 people, val 1 clips of 1 people; left out 1 videos that are no clips, such as bob/stray.mp4" \
        in capsys.readouterr().out


@pytest.mark.parametrize("text, words", [
    (None, "no recipe"), ("name: [", "is no YAML"), ("- a\n", "has list; expected name and clips"),
    ("name: x\n", "has name; expected name and clips"), ("name: x\nclips: (?P<person>.)\ncrops: 1\n", "has name, clips, crops"),
    ("name: x\nclips: '('\n", "no regular expression"), ("name: x\nclips: (?P<view>.)\n", "has the groups view; expected"),
    ("name: x\nclips: (?P<person>.)\nheld_out: {val: [a, b], test: [b]}\n", "holds b out twice"),
    *((f"name: x\nclips: (?P<person>.)\n{line}\n", words) for line, words in [
        ("held_out: {val: ann}", "has held_out: {'val': 'ann'}; expected a list of people"),
        ("held_out: {val: [7]}", "expected a list of people"), ("held_out: [ann]", "expected a list of people"),
        ("same_person: [ann]", "expected a name for each"), ("margin: big", "has margin: 'big'; expected a number"),
        ("sound: '{person}.wav'", "expected a list of texts"), ("sound:", "has sound: None; expected a list"),
        ("sound: ['{actor}.wav']", "has the path '{actor}.wav'; expected of {person} what"),
        ("in_step_with: '{0}.mp4'", "has the path"), ("in_step_with: '{person.mp4'", "has the path")])])
def test_recipes_that_make_no_sense_say_why(tmp_path, text, words):
    if text is not None:
        (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(InputError, match=re.escape(words)):
        Recipe.read(tmp_path / "recipe.yaml")


def test_a_folder_without_a_clip_is_an_error_that_says_what_was_expected(tmp_path):
    with pytest.raises(DatasetError, match="has 0 files and no clip of mead; expected paths like"):
        list_clips(DATASETS / "mead" / "recipe.yaml", tmp_path / "none", tmp_path / "out.tsv")
    assert not (tmp_path / "out.tsv").exists()
