"""Runs side by side: what they were told to do, what they reached, and whether the difference is more than chance."""
