"""Wholes: parts assembled into models that turn a portrait, motion and cameras into frames."""
