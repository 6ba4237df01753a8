"""How good are videos? One suite of figures for `s3dnerf evaluate` and `s3dnerf test` (docs/evaluation.md)."""
