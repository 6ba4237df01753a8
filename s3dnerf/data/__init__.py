"""Data: from raw videos to shards, and from shards to batches of clips."""
