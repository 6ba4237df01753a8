"""The toy check: is every part of a talking head at work, on clips of people whom it has never seen? See docs/toy_checks.md.

A *row* is a way to build something that looks right and is not; each has checks, and each check gives lines of the report.
"""
