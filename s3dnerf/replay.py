"""What is done again and again on a GPU, recorded once: a graph of its kernels, begun by a single call."""
from __future__ import annotations

from typing import Callable, Optional

import torch
from torch import Tensor

from s3dnerf.types import TensorRecord


class Recorder:
    """Records on a GPU (`torch.cuda.CUDAGraph`)."""

    def record(self, function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """What does again what `function` did, and where its result then is. Nothing is computed meanwhile."""
        graph = torch.cuda.CUDAGraph()
        # other threads, of an encoder or a server, go on with what they do
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = function()
        return graph.replay, result


class Replay:
    """A function of records whose shapes never change, and whose result [T, *] has a row per frame.

    The first call does what the function does, which is also when kernels are compiled and constants sent; the second records it,
    from then on it is replayed. Records with fewer frames than the first had are filled up with their last one. Where recording
    fails, the function is called as it is from then on, and `remark` says why.

    Args:
        function: of records [1, T], without a step that waits for the device.
        frames: T.
        recorder: how recording is done.
        remark: takes one line where recording fails.
    """

    def __init__(self, function: Callable[..., Tensor], frames: int, recorder: Recorder = Recorder(),
                 remark: Callable[[str], None] = lambda line: None):
        self.function, self.frames, self.recorder, self.remark = function, frames, recorder, remark
        self.warm, self.failed = False, False
        self.inputs: tuple[TensorRecord, ...] = ()
        self.replay: Optional[Callable[[], None]] = None
        self.result: Optional[Tensor] = None

    def __call__(self, *records: TensorRecord) -> Tensor:
        """The function's result [t, *] for records [1, t], t at most `frames`. It is overwritten by the next call, which waits for
        what was begun with it on the same device."""
        count = _frames(records[0])
        records = tuple(record.map(lambda values: filled(values, self.frames)) for record in records)
        if not self.warm or self.failed:
            self.warm = True
            return self.function(*records)[:count]
        if self.replay is None and not self._record(records):
            return self.function(*records)[:count]
        for kept, given in zip(self.inputs, records):
            for place, values in zip(tensors(kept), tensors(given)):
                place.copy_(values)
        self.replay()
        return self.result[:count]

    def _record(self, records: tuple[TensorRecord, ...]) -> bool:
        """Whether it could be recorded."""
        self.inputs = tuple(record.map(torch.clone) for record in records)
        try:
            self.replay, self.result = self.recorder.record(lambda: self.function(*self.inputs))
        except RuntimeError as error:
            self.failed = True
            why = (str(error).strip().splitlines() or [""])[0]
            self.remark(f"rendering could not be recorded as a graph, and is slower without ({why[:120]})")
        return not self.failed


def filled(values: Tensor, count: int) -> Tensor:
    """[1, count, *] of values [1, t, *], the last repeated."""
    missing = count - values.shape[1]
    return values if missing <= 0 else torch.cat([values, values[:, -1:].expand(-1, missing, *values.shape[2:])], 1)


def tensors(record: TensorRecord) -> list[Tensor]:
    """All tensors of a record, in the order of its fields."""
    found: list[Tensor] = []
    record.map(lambda values: found.append(values) or values)
    return found


def _frames(record: TensorRecord) -> int:
    return tensors(record)[0].shape[1]
