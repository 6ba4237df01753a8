"""What says of a generated video that it is synthetic: a watermark, metadata, a C2PA manifest, a visible label."""
