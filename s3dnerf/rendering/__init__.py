"""Rays and a field in, colours out. Knows nothing of faces, speech or networks."""
