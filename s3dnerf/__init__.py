"""S3D-NeRF: one photo and a recording of speech in, a talking video out.

>>> from s3dnerf import TalkingHead
>>> TalkingHead.load().speak("face.jpg", "hello.wav").save("out.mp4")                                    # doctest: +SKIP
"""
from importlib import import_module

__version__ = "0.1.0"
__all__ = ["TalkingHead", "TalkingVideo", "available_models", "load_model", "__version__"]

_HOMES = {"TalkingHead": "s3dnerf.inference", "TalkingVideo": "s3dnerf.inference",
          "available_models": "s3dnerf.models.hub", "load_model": "s3dnerf.models.hub"}


def __getattr__(name: str):
    """Imports the public names when they are first used, so that `s3dnerf --help` need not wait for PyTorch."""
    if name not in _HOMES:
        raise AttributeError(f"module 's3dnerf' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
