#!/usr/bin/env python3
"""Writes the triangles between neighbouring landmarks of the face mesh: `face_triangles.py OUTPUT.npy`.

MediaPipe's package lists the mesh's edges; three edges that close are a triangle, unless each of them belongs to two
others already: then they go round a smaller one. s3dnerf/assets/face_triangles.npy was made by this command.
"""
import argparse
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
from mediapipe.python.solutions.face_mesh_connections import FACEMESH_TESSELATION

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("output", type=Path, help="NumPy file")
options = parser.parse_args()
edges = {frozenset(edge) for edge in FACEMESH_TESSELATION}
beside = {point: {other for edge in edges if point in edge for other in edge if other != point} for point in range(468)}
closed = {edge | {third} for edge in edges for third in set.intersection(*(beside[point] for point in edge))}
owners = Counter(frozenset(edge) for triangle in closed for edge in combinations(triangle, 2))
faces = [sorted(triangle) for triangle in closed if min(owners[frozenset(edge)] for edge in combinations(triangle, 2)) < 3]
np.save(options.output, np.array(sorted(faces), np.int16))
