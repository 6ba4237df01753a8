"""Who is it? ArcFace (Deng et al. 2019) from a file of the user's."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from s3dnerf.errors import CheckpointError
from s3dnerf.evaluation.footage import similarity
from s3dnerf.face import EYE_RINGS

SIZE = 112
GOAL = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])
"""pixels at which ArcFace was taught to have eyes, tip of the nose and corners of the mouth"""
NOSE_TIP, MOUTH_CORNERS = 4, (61, 291)


class ArcFace:
    """A network in ONNX (run by OpenCV) or TorchScript that makes an embedding of a face [N, 3, 112, 112], red, green, blue,
    (x - 127.5) / 127.5.

    Raises:
        CheckpointError: for a file that is neither.
    """

    def __init__(self, path: Path, device: str = "cpu"):
        import cv2

        self.device, self.onnx, self.script = device, None, None
        try:
            if path.suffix == ".onnx":
                self.onnx = cv2.dnn.readNetFromONNX(str(path))
            else:
                self.script = torch.jit.load(str(path), map_location=device).eval()
        except Exception as error:  # OpenCV and torch raise types of their own
            raise CheckpointError(f"{path} is no ArcFace network ({str(error).splitlines()[0][:80]}); give an ONNX file (.onnx) "
                                  "or a TorchScript one") from None

    @torch.inference_mode()
    def embed(self, frames: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """Embeddings [N, C] of unit length of the faces of frames [N, H, W, 3] uint8 with landmarks [N, 478, 2]."""
        faces = np.stack([aligned(frame, points) for frame, points in zip(frames, landmarks)])
        inputs = np.ascontiguousarray((faces.transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 127.5)
        if self.onnx is None:
            found = self.script(torch.from_numpy(inputs).to(self.device)).cpu().numpy()
        else:
            found = np.concatenate([self._run(face) for face in inputs])
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)

    def _run(self, face: np.ndarray) -> np.ndarray:
        self.onnx.setInput(face[None])
        return self.onnx.forward().reshape(1, -1)


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """Middles of the eyes, tip of the nose, corners of the mouth [5, 2] of landmarks [478, 2]."""
    eyes = [landmarks[list(ring)].mean(0) for ring in EYE_RINGS]
    return np.stack([*eyes, landmarks[NOSE_TIP], *landmarks[list(MOUTH_CORNERS)]])


def aligned(frame: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The face [112, 112, 3] of a frame."""
    import cv2

    move = similarity(five_points(landmarks), GOAL)
    scale = np.hypot(*move[:, 0])
    frame = cv2.GaussianBlur(frame, (0, 0), 0.45 / scale) if scale < 0.8 else frame
    return cv2.warpAffine(frame, move, (SIZE, SIZE), flags=cv2.INTER_LINEAR)
