# `make demo` and `make test` set everything up by themselves: a virtual environment in .venv with pinned versions.
SUPPORTED = import sys, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))
PYTHON ?= $(shell for p in python3.12 python3.11 python3.10 python3; do \
	$$p -c '$(SUPPORTED)' 2>/dev/null && echo $$p && break; done)
RUN = .venv/bin
PIP = $(RUN)/python -m pip --quiet --disable-pip-version-check

.PHONY: help setup demo test test-browser clean

help:
	@echo "make demo   set up once, then write demo.mp4 (a talking video) and demo.png (a contact sheet)"
	@echo "make test   set up once, then run the tests"
	@echo "make test-browser   run those of the service's page, which need Chromium: Debian's is installed where this may be done"
	@echo "make clean  remove the environment and what was made"

setup: .venv/.installed

# MediaPipe asks for OpenCV with windows, which needs libGL; the headless wheel of the same version takes its place.
# The stamp is touched last, so that a set-up that was interrupted is taken up again by the next call.
.venv/.installed: constraints.txt pyproject.toml
	@$(or $(PYTHON),false) -c '$(SUPPORTED)' 2>/dev/null || { \
	echo "expected Python 3.10, 3.11 or 3.12 with venv, found $(or $(PYTHON),none); install one, or call make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "setting up .venv: once, some minutes and about 6 GB"
	@$(RUN)/python -c '$(SUPPORTED)' 2>/dev/null && $(RUN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(PIP) install -c constraints.txt -e '.[dev]'
	$(PIP) uninstall --yes opencv-contrib-python
	$(PIP) install --no-deps --force-reinstall -c constraints.txt opencv-contrib-python-headless
	@touch $@

demo: setup
	$(RUN)/s3dnerf speak --photo s3dnerf/assets/demo_photo.jpg --speech s3dnerf/assets/demo_speech.wav --output demo.mp4 --sheet demo.png

test: setup
	$(RUN)/python -m pytest

test-browser: setup
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || { \
	test "$$(id -u)" = 0 && command -v apt-get >/dev/null || { \
	echo "found no chromium with its driver; install them, on Debian with: apt-get install chromium chromium-driver" >&2; exit 2; }; \
	apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium chromium-driver fonts-liberation; }
	$(RUN)/python -m pytest -n 0 tests/service/page

clean:
	rm -rf .venv build *.egg-info demo.mp4 demo.png
