#!/usr/bin/env python3
"""Parameters and floating point operations of the model that configurations describe.

    model_size.py --config configs/one_shot.yaml --config configs/overlays/base.yaml

Takes whatever `s3dnerf fit` takes. Nothing is computed: shapes alone go through the model, so that any size is counted on
any machine. Counted are products of matrices, convolutions, and bilinear and trilinear look-ups, a multiplication and an
addition as two; not what is done number by number (activations, the rendering integral). Whole modules are told apart; the
look-ups between them (tri-planes, the lattice, the photo) are a row of their own.
"""
import sys

from s3dnerf.benchmark.operations import table
from s3dnerf.cli import lightning

if __name__ == "__main__":
    if len(sys.argv) == 1 or {"-h", "--help"} & set(sys.argv):
        sys.exit(__doc__)
    print("\n".join(table(lightning(sys.argv[1:], run=False).model.model)))
