"""What a GPU must not be made to wait for, watched on a device that computes nothing."""
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from s3dnerf.device import compiled, constant, indices, kernels_work, settled, upload
from s3dnerf.models import fused_march, one_shot
from s3dnerf.networks.super_resolution import HalfSuperResolution, SuperResolution
from s3dnerf.paste import FaceFrame, FullFrame
from s3dnerf.types import Cameras, Portrait

WAITING = {"new_tensor", "tensor", "as_tensor", "item", "tolist", "cpu", "numpy", "nonzero", "__bool__", "__int__", "__float__",
           "masked_select", "argwhere", "unique", "pin_memory"}


class Watch(TorchFunctionMode):
    """Notes what would wait for a GPU: numbers sent to it or asked of it, and places told by lists or by masks."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, function, types, arguments=(), options=None):
        name = getattr(function, "__name__", str(function))
        if name in WAITING:
            self.seen.append(name)
        if name in ("__getitem__", "__setitem__"):
            index = arguments[1] if isinstance(arguments[1], tuple) else (arguments[1],)
            if any(isinstance(part, list) or (isinstance(part, torch.Tensor) and part.dtype == torch.bool) for part in index):
                self.seen.append(f"{name} by a list or a mask")
        return function(*arguments, **(options or {}))


class Meeting(TorchDispatchMode):
    """Notes operators at which tensors of two devices meet; a single number of the processor may come along."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        found = [value for value in tree_leaves((arguments, options, result)) if isinstance(value, torch.Tensor)]
        if len({value.device for value in found if value.dim()}) > 1:
            self.seen.append(str(function))
        return result


def blank(size, device):
    new = lambda *shape: torch.zeros(*shape, device=device)
    return Portrait(new(1, 3, size, size), new(1, 1, size, size), Cameras(new(1, 4, 4), new(1, 3, 3)), new(1, 478, 3),
                    new(1, 1, size, size))


@pytest.mark.parametrize("quality, canvas", [("best", "face"), ("fast", "full")])
@torch.inference_mode()
def test_nothing_waits_in_what_is_recorded(quality, canvas, monkeypatch):
    """From speech codes to the bytes that are fetched."""
    torch.manual_seed(0)
    model = one_shot.S3DNeRF(image_size=64, encoder_channels=(8, 8, 8, 8), plane_channels=4, width=16, modulation_channels=6,
                             lattice=(8, 8, 4), token_channels=8, coarse_samples=4, fine_samples=4, feature_channels=6,
                             super_resolution_channels=(8, 8)).eval().to("meta")
    monkeypatch.setattr(one_shot, "fusable", fused_march.known)
    monkeypatch.setattr(fused_march.FusedMarch, "_launch", lambda *_: None)
    appearance = model.with_detail(model.encode(blank(64, "meta")))
    if quality == "fast":
        appearance = model.with_occupancy(appearance, 3, half=True)
    motion = model.drive(torch.zeros(1, 2, model.features.channels, model.features.window, device="meta"))
    cameras = Cameras(torch.zeros(1, 2, 4, 4, device="meta"), torch.zeros(1, 2, 3, 3, device="meta"))
    canvas = FaceFrame(64) if canvas == "face" else full_frame()
    show = lambda: canvas.shown(model.render(appearance, motion, cameras))
    show()  # constants are sent the first time
    with Watch() as watch, Meeting() as meeting:
        shown = show()
    assert shown.dtype == torch.uint8 and shown.shape[0] == 2 and shown.device.type == "meta"
    assert not watch.seen and not meeting.seen


def full_frame():
    import numpy as np

    from s3dnerf.data.cropping import CropBox

    canvas = FullFrame(np.zeros((80, 100, 3), np.uint8), CropBox(10.0, 5.0, 70.0), torch.device("cpu"))
    for name in ("part", "places", "fade", "own"):
        setattr(canvas, name, getattr(canvas, name).to("meta"))
    return canvas


def test_the_watch_sees_what_would_wait():
    values = torch.zeros(4, device="meta")
    with Watch() as watch, Meeting() as meeting:
        values.new_tensor([1.0])
        values[[0, 1]]
        values[torch.tensor([2, 3])]
    assert watch.seen == ["new_tensor", "__getitem__ by a list or a mask", "tensor"] and meeting.seen == ["aten.index.Tensor"]


def test_constants_are_sent_once_and_may_be_learned_with():
    on_device = torch.zeros(2, device="meta")
    with torch.inference_mode():
        first = constant((1.0, 2.0), on_device)
    assert constant((1.0, 2.0), on_device) is first and not first.is_inference() and first.dtype == on_device.dtype
    assert constant((1.0, 2.0), torch.zeros(2, dtype=torch.float64)).tolist() == [1, 2]
    assert indices((3, 1), on_device).dtype == torch.int64 and indices((3, 1), torch.zeros(1)).tolist() == [3, 1]


def test_on_a_processor_nothing_is_changed():
    values, model = torch.rand(3), torch.nn.Conv2d(2, 3, 3)
    assert upload(values, torch.device("cpu")) is values
    before = torch.backends.cudnn.benchmark
    assert settled(model) is model and model.weight.is_contiguous() and torch.backends.cudnn.benchmark == before


@pytest.mark.parametrize("half", [False, True])
@torch.inference_mode()
def test_super_resolution_compiles_as_a_whole_and_is_the_same(half):
    torch.manual_seed(0)
    plain = SuperResolution(6, 8, 8).eval()
    part = HalfSuperResolution(plain) if half else plain
    maps = [torch.rand(2, channels, *([32, 32] if large else [8, 8])) for channels, large in
            ((6, False), (1, True), (1, False), (1, False), (3, True), (3, True), (3, True))]
    expected, told = part(*maps), []
    assert compiled(part, lambda: part(*maps), told.append, backend="eager") and part._compiled_call_impl is not None
    assert torch.equal(part(*maps), expected) and not told


def test_what_does_not_compile_is_as_it_was_and_one_line_says_so():
    part, told = SuperResolution(6, 8, 8).eval(), []

    def trial():
        raise RuntimeError("no compiler here\nand more")

    assert not compiled(part, trial, told.append, backend="eager") and part._compiled_call_impl is None
    assert len(told) == 1 and "no compiler here" in told[0] and "\n" not in told[0]


def test_whether_kernels_work_is_tried_and_one_line_says_that_they_do_not(monkeypatch):
    pytest.importorskip("triton", reason="Triton is not installed; it comes with torch for Linux and CUDA")
    from s3dnerf import trial_kernel

    there = torch.device("cpu")
    kernels_work.cache_clear()
    assert kernels_work(there)
    kernels_work.cache_clear()

    class Broken:
        def __getitem__(self, grid):
            raise RuntimeError("Failed to find C compiler.\nSet CC")

    monkeypatch.setattr(trial_kernel, "double_kernel", Broken())
    with pytest.warns(UserWarning, match=r"slower without \(RuntimeError: Failed to find C compiler.\)$"):
        assert not kernels_work(there)
    assert not kernels_work(there), "and it is not tried again"
    kernels_work.cache_clear()
