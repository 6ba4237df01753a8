#!/usr/bin/env python3
"""Fits what `FaceCode` knows of faces on prepared shards: `fit_face_basis.py SHARDS OUTPUT.npz`.

- mean, basis, spread: principal components of lips and jaw (x and y, head frame) around each person's mean face.
- mesh: where a driving code moves every landmark, least squares.
- own: what a face's driving code is, given its absolute code, ridge regression with the constant last.

Every person counts alike. s3dnerf/assets/face_basis.npz was made by this command from the training people (its first three
arrays from an earlier preparation of the same clips).
"""
import io
import json
import sys
import tarfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from s3dnerf.face import FaceCode, eye_opening

shards, output = Path(sys.argv[1]), Path(sys.argv[2])
meshes, owner = {}, {}
for path in sorted(shards.glob("*.tar")):
    with tarfile.open(path) as tar:
        for member in tar:
            key, field = member.name.split(".", 1)
            if field == "mesh.npy":
                meshes[key] = np.load(io.BytesIO(tar.extractfile(member).read())).astype(np.float32)
            elif field == "json":
                owner[key] = json.loads(tar.extractfile(member).read())["person"]
people = defaultdict(list)
for key, mesh in meshes.items():
    people[owner[key]].append(mesh)
people = [np.concatenate(clips) for clips in people.values()]


def lips(mesh):
    return mesh[:, list(FaceCode.points), :2].reshape(len(mesh), -1)


def eyes(mesh):
    return eye_opening(torch.from_numpy(mesh)).numpy()[:, None] / 0.1


shapes = [lips(mesh) for mesh in people]
rows = np.concatenate([(shape - shape.mean(0)) / np.sqrt(len(shape)) for shape in shapes])
_, values, basis = np.linalg.svd(rows, full_matrices=False)
size = FaceCode.size - 1
mean, basis, spread = np.mean([shape.mean(0) for shape in shapes], 0), basis[:size], values[:size] / np.sqrt(len(people))


def absolute(mesh):
    return np.concatenate([(lips(mesh) - mean) @ basis.T / spread, eyes(mesh) - 1.2], 1)


inner, outer, square, cross = 0, 0, np.eye(size + 2), 0  # the identity is the ridge
for mesh in people:
    known = absolute(mesh)
    code = known - absolute(mesh.mean(0, keepdims=True))
    moved = (mesh - mesh.mean(0))[..., :2].reshape(len(mesh), -1)
    inner, outer = inner + code.T @ code / len(mesh), outer + code.T @ moved / len(mesh)
    known = np.concatenate([known, np.ones((len(mesh), 1))], 1)
    square, cross = square + known.T @ known / len(mesh), cross + known.T @ code / len(mesh)
mesh = np.linalg.solve(inner + 1e-3 * np.trace(inner) / len(inner) * np.eye(len(inner)), outer)
np.savez(output, mean=mean.astype(np.float32), basis=basis.astype(np.float32), spread=spread.astype(np.float32),
         mesh=mesh.reshape(size + 1, -1, 2).astype(np.float16), own=np.linalg.solve(square, cross).astype(np.float32))
print(f"{len(people)} people, {len(meshes)} clips; shares of variance:", (values ** 2 / (values ** 2).sum())[:size].round(3))
