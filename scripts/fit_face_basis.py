#!/usr/bin/env python3
"""Fits the basis of the lip code on prepared shards: `fit_face_basis.py SHARDS OUTPUT.npz`.

Principal components of lips and jaw (x and y, head frame) around each person's mean face; every person counts alike.
The file that ships with the package, s3dnerf/assets/face_basis.npz, was made by this command from the training people.
"""
import io
import json
import sys
import tarfile
from collections import defaultdict
from pathlib import Path

import numpy as np

from s3dnerf.face import FaceCode

shards, output = Path(sys.argv[1]), Path(sys.argv[2])
shapes, owner = {}, {}
for path in sorted(shards.glob("*.tar")):
    with tarfile.open(path) as tar:
        for member in tar:
            key, field = member.name.split(".", 1)
            if field == "mesh.npy":
                shapes[key] = np.load(io.BytesIO(tar.extractfile(member).read()))[:, list(FaceCode.points), :2]
            elif field == "json":
                owner[key] = json.loads(tar.extractfile(member).read())["person"]
people = defaultdict(list)
for key, shape in shapes.items():
    people[owner[key]].append(shape.reshape(len(shape), -1))
means, rows = [], []
for clips in people.values():
    shape = np.concatenate(clips)
    means.append(shape.mean(0))
    rows.append((shape - shape.mean(0)) / np.sqrt(len(shape)))
_, values, basis = np.linalg.svd(np.concatenate(rows), full_matrices=False)
size = FaceCode.size - 1
np.savez(output, mean=np.mean(means, 0).astype(np.float32), basis=basis[:size].astype(np.float32),
         spread=(values[:size] / np.sqrt(len(people))).astype(np.float32))
print(f"{len(people)} people, {len(shapes)} clips; shares of variance:", (values ** 2 / (values ** 2).sum())[:size].round(3))
