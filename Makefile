# `make demo` and `make test` set everything up by themselves: a virtual environment in .venv with pinned versions.
PYTHON ?= $(shell for p in python3.12 python3.11 python3.10 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
RUN = .venv/bin

.PHONY: help setup demo test clean

help:
	@echo "make demo   set up once, then write demo.mp4 (a talking video) and demo.png (a contact sheet)"
	@echo "make test   set up once, then run the tests"
	@echo "make clean  remove the environment and what was made"

setup: .venv/.installed

# MediaPipe asks for OpenCV with windows, which needs libGL; the headless wheel of the same version takes its place.
.venv/.installed: constraints.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "found no Python 3.10, 3.11 or 3.12; install one, or call make PYTHON=/path/to/python3.11"; exit 2; }
	test -x $(RUN)/python || $(PYTHON) -m venv .venv
	$(RUN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(RUN)/python -m pip uninstall --quiet --disable-pip-version-check --yes opencv-contrib-python
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall -c constraints.txt opencv-contrib-python-headless
	touch $@

demo: setup
	$(RUN)/s3dnerf speak --photo s3dnerf/assets/demo_photo.jpg --speech s3dnerf/assets/demo_speech.wav --output demo.mp4 --sheet demo.png

test: setup
	$(RUN)/python -m pytest

clean:
	rm -rf .venv build *.egg-info demo.mp4 demo.png
