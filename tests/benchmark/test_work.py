"""Operations and bytes of stages, against counts by hand; the roofline in closed form."""
import torch

from s3dnerf.benchmark.machine import Machine, peak_memory
from s3dnerf.benchmark.work import bytes_of, operations_of
from s3dnerf.statistics import Statistics
from s3dnerf.stopwatch import stage
from s3dnerf.workers import Workers


def task(statistics):
    left, right = torch.ones(8, 16), torch.ones(16, 4)

    def run():
        with statistics.stage("render"):
            left[:, :].view(16, 8).t()  # moves nothing
            with stage("ray march"):
                left @ right

    return run


def test_every_stage_has_its_own_operations_and_bytes():
    statistics = Statistics("none", torch.device("cpu"), 0)
    watch = statistics.stopwatch
    assert operations_of(statistics, task(statistics)) == {"ray march": 2 * 8 * 16 * 4, "render": 0}
    assert bytes_of(statistics, task(statistics)) == {"ray march": 4 * (8 * 16 + 16 * 4 + 8 * 4), "render": 0}
    assert statistics.stopwatch is watch and not watch.seconds


def test_what_is_repeated_is_read_once():
    statistics = Statistics("none", torch.device("cpu"), 0)

    def run():
        with statistics.stage("render"):
            torch.ones(1).expand(100) + 1

    assert bytes_of(statistics, run)["render"] == 4 + 4 + 4 * 100  # one is written, read, and a hundred are written


def test_the_roofline_is_the_slower_of_both_ceilings():
    machine = Machine("cpu", "paper", 1, product=100.0, copy=10.0)
    assert machine.least_seconds(200, 1) == 2.0 and machine.least_seconds(1, 200) == 20.0


def test_ceilings_are_measured():
    machine = Machine.measured(torch.device("cpu"), Workers(1))
    assert 1e8 < machine.product < 1e14 and 1e7 < machine.copy < 1e13 and machine.threads == 1 and machine.name
    assert 50 < peak_memory(torch.device("cpu"))["process_mb"] < 1e6
