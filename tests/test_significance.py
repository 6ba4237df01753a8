"""Intervals and tests against closed forms and hand-made cases."""
import numpy as np
import pytest

from s3dnerf.significance import difference, holm, interval


def test_the_interval_of_many_values_is_that_of_the_normal_distribution():
    values = np.random.default_rng(1).normal(3, 2, 400)
    found = interval(values)
    half = 1.96 * values.std(ddof=1) / 20
    assert found.mean == pytest.approx(values.mean()) and found.clips == 400
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.06)
    assert interval(values) == found


def test_it_covers_the_true_mean_nineteen_times_of_twenty():
    draws = np.random.default_rng(2).exponential(size=(200, 60))
    covered = [found.low <= 1 <= found.high for found in (interval(row, draws=400) for row in draws)]
    assert 0.88 <= np.mean(covered) <= 0.98


def test_what_is_missing_is_left_out_and_one_clip_has_no_interval():
    assert interval([None, float("nan"), 2.0, 4.0]).mean == 3 and interval([None, 2.0, 4.0]).clips == 2
    one = interval([5.0])
    assert (one.mean, one.low, one.high, one.clips) == (5.0, None, None, 1)
    assert interval([None]) is None and interval([]) is None


def test_a_difference_is_taken_clip_by_clip():
    """The clips differ far more among each other than the runs do, and their order in the tables is no matter."""
    rng = np.random.default_rng(3)
    level = {f"clip{i}": float(value) for i, value in enumerate(rng.normal(0, 10, 20))}
    raised = {clip: level[clip] + 0.5 + 0.1 * rng.normal() for clip in reversed(level)}
    found = difference(raised, level)
    assert found.change.mean == pytest.approx(0.5, abs=0.1) and found.change.low > 0.3 and found.p < 1e-4
    back = difference(level, raised)
    assert back.change.mean == pytest.approx(-found.change.mean) and back.p == pytest.approx(found.p)
    shuffled = dict(zip(level, rng.permutation(list(raised.values()))))
    assert difference(shuffled, level).p > 0.05


def test_six_clips_that_all_rise_are_two_in_sixty_four():
    low = {str(i): float(i) for i in range(6)}
    assert difference({clip: value + 1 + 0.1 * value for clip, value in low.items()}, low).p == pytest.approx(2 / 64)


def test_equal_runs_do_not_differ_and_rounding_is_no_difference():
    values = {str(i): 20.0 + i for i in range(8)}
    nearly = {clip: value * (1 + 1e-12) for clip, value in values.items()}
    for other in (values, nearly):
        found = difference(other, values)
        assert found.p == 1 and found.change.mean == 0


def test_only_clips_of_both_count():
    assert difference({"a": 1.0, "b": 2.0}, {"b": 1.0, "c": 1.0}) is None
    assert difference({"a": 1.0, "b": 2.0, "x": 9.0}, {"b": 1.0, "a": 1.0}).change.clips == 2


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == [] and holm([0.02]) == [0.02]
