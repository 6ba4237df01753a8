"""The record of a run, and how settings and names are told."""
from pathlib import Path

import pytest

from s3dnerf.comparison.run import Run, commit_of, curves_of, distinct, flattened, number, without_place


def test_settings_are_flat_and_classes_stand_under_what_they_fill():
    config = {"seed": 0, "model": {"class_path": "a.b.System", "init_args": {"model": {"class_path": "c.Net", "init_args": {"width": 3}}}},
              "list": [1, 2], "nothing": {}, "callbacks": [{"class_path": "x.EMA", "init_args": {"decay": 0.9}}, {"class_path": "x.Guard"}]}
    assert flattened(config) == {"seed": 0, "model": "System", "model.model": "Net", "model.model.width": 3, "list": [1, 2],
                                 "nothing": {}, "callbacks.EMA": "EMA", "callbacks.EMA.decay": 0.9, "callbacks.Guard": "Guard"}


def test_a_run_s_own_folder_is_no_difference():
    assert without_place({"a": "runs/x/b.ckpt", "b": 3, "c": '{"": "runs/x/m.ckpt"}'}, Path("runs/x")) == \
        {"a": "RUN/b.ckpt", "b": 3, "c": '{"": "RUN/m.ckpt"}'}


def test_cells_that_are_no_numbers_are_left_out_of_curves():
    rows = [{"step": "0", "train/total": "2.5", "epoch": "0", "val/x": ""}, {"step": "1", "train/total": "nan", "val/x": "7"},
            {"step": "1", "val/x": "8"}, {"step": "", "val/x": "9"}]
    assert curves_of(rows) == {"train/total": [(0, 2.5)], "val/x": [(1, 8)]}
    assert [number(x) for x in ("1e3", None, "inf", "", [])] == [1000.0, None, None, None, None]


def test_means_are_over_clips_and_else_the_curve_s_end():
    run = Run("a", "training", curves={"val/x": [(0, 1.0), (9, 4.0)], "train/total": [(0, 1.0), (19, 0.5)]})
    assert run.mean("x").mean == 4 and run.mean("x").clips == 0 and run.mean("y") is None and run.figures == ["x"] and run.steps == 20
    run = Run("a", "training", curves={"val/x": [(0, 1.0)]}, clips={"a": {"z": 1.0}, "b": {"z": None}, "c": {"z": 3.0}})
    assert run.mean("z").mean == 2 and run.values("z") == {"a": 1.0, "c": 3.0} and run.mean("x") is None and run.figures == ["z"]
    staged = Run("a", "training", curves={"motion: val/x": [(0, 3.0)]})
    assert staged.figures == ["motion: x"] and staged.mean("motion: x").mean == 3


@pytest.mark.parametrize("sources, names", [
    (["runs/abl/full", "runs/abl/no_deformation/"], ["full", "no_deformation"]),
    (["runs/a/version_0", "runs/b/version_0"], ["a", "b"]),
    (["runs/a/version_0", "runs/a/version_1"], ["version_0", "version_1"]),
    (["a", "runs/a"], ["a", "runs/a"])])
def test_names_are_what_differs_in_paths(sources, names):
    assert list(distinct([Run(source, "training") for source in sources])) == names


def test_a_run_s_own_name_counts_where_it_is_the_only_one_of_it():
    runs = [Run("x/1", "wandb", name="hope"), Run("x/2", "wandb", name="despair"), Run("x/3", "wandb", name="despair")]
    assert list(distinct(runs)) == ["hope", "2", "3"]


def test_commits_in_a_word():
    assert commit_of({"commit": "0123456789abcdef", "dirty": True}) == "0123456789+" and commit_of(None) == ""
