"""Everything that a running service holds, and its rounds."""
from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from s3dnerf.service.crew import Crew
from s3dnerf.service.jobs import Inputs, JobBook, new_id
from s3dnerf.service.metrics import Metrics
from s3dnerf.service.options import known
from s3dnerf.service.people import Faces, People
from s3dnerf.service.schema import fields_of
from s3dnerf.service.settings import Refusal, Settings
from s3dnerf.service.uploads import AT_ONCE, Decoded, Sandbox

ROUND = 1.0
"""seconds"""
GALLERIES = 1000
"""whose previews are kept in order"""
FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")


@dataclass
class Form:
    """A multipart request that was read: plain fields, and files under names of ours."""

    fields: dict[str, str]
    files: dict[str, Path]

    def discard(self) -> None:
        """Deletes the files."""
        for path in self.files.values():
            path.unlink(missing_ok=True)


class Service:
    """The state of one server.

    Args:
        settings: how it is set up.
        crew: makes the workers; None for processes of this machine.
    """

    def __init__(self, settings: Settings, crew=Crew):
        self.settings, self.metrics, self.sandbox = settings, Metrics(), Sandbox(settings)
        self.temporary = settings.folder is None
        self.root = Path(tempfile.mkdtemp(prefix="s3dnerf-") if self.temporary else settings.folder)
        for part in ("faces", "scratch"):
            shutil.rmtree(self.root / part, ignore_errors=True)
            (self.root / part).mkdir(parents=True, mode=0o700)
        self.book = JobBook(settings, self.root / "videos")
        self.faces = Faces(self.root / "faces", settings.face_seconds)
        self.people = People(settings.people, self.sandbox, self.root / "scratch")
        self.crew = crew(settings, self.book, self.root / "workers", self.metrics)
        self.decoders = ThreadPoolExecutor(AT_ONCE)
        """threads that wait for decoders, apart from those that everything else needs"""
        self.looking = 0
        """looks and previews that are being answered"""
        self.newest: dict[str, int] = {}
        """of each gallery, its newest request for a preview"""
        self.turns: dict[str, asyncio.Lock] = {}
        """of each gallery, one preview at a time"""
        self.rounds: Optional[asyncio.Task] = None

    async def start(self) -> None:
        """Starts workers and rounds."""
        self.crew.start()
        self.rounds = asyncio.create_task(self._rounds())

    async def stop(self) -> None:
        """Ends them; nothing stays but what was asked for."""
        self.rounds.cancel()
        with suppress(asyncio.CancelledError):
            await self.rounds
        await self.crew.stop()
        self.decoders.shutdown(wait=False, cancel_futures=True)
        for part in ("faces", "scratch", "videos", "workers"):
            shutil.rmtree(self.root / part, ignore_errors=True)
        if self.temporary:
            shutil.rmtree(self.root, ignore_errors=True)

    async def _rounds(self) -> None:
        while True:
            try:
                self._round()
            except Exception:  # the next round may go well, and videos must not wait for ever
                traceback.print_exc(file=sys.stderr)
            await asyncio.sleep(ROUND)

    def _round(self) -> None:
        self.book.expire()
        self.faces.expire()
        if len(self.newest) > GALLERIES:
            self.newest.clear()
            self.turns = {name: turn for name, turn in self.turns.items() if turn.locked()}
        self.crew.fill()

    async def read(self, request, described: dict, folder: Path) -> Form:
        """The multipart form of a request; files are put into a folder. Refusal for what is no form, or too large, or has a field
        that is not described.

        Args:
            request: of Starlette.
            described: the form, as in `schema`.
            folder: an existing one.
        """
        if not request.headers.get("content-type", "").startswith(FORMS):
            raise Refusal(400, "bad_request", "found no form; send the fields and files as multipart/form-data")
        form, fields = Form({}, {}), fields_of(described)
        names = [name for name, is_file in fields.items() if is_file]
        try:
            async with request.form(max_files=6, max_fields=30, max_part_size=16_384) as sent:
                known(sent, list(fields))
                for name, value in sent.multi_items():
                    if isinstance(value, str):
                        form.fields[name] = value
                    elif name in names and name not in form.files:
                        form.files[name] = folder / f"{new_id()}.upload"
                        await asyncio.to_thread(_copy, value.file, form.files[name])
                    else:
                        raise Refusal(422, "invalid_option", f"found a file {name[:40]!r}; expected one each of {', '.join(names)}")
        except BaseException:
            form.discard()
            raise
        for name in names:
            if form.fields.get(name) and name not in form.files:
                form.discard()
                raise Refusal(422, "missing", f"found {name} as text; send it as a file")
        return form

    async def decoded(self, form: Form, kind: str, name: str, folder: Path, ending: str = ".npy") -> Optional[Decoded]:
        """A file of a form, decoded into a folder; None where it was not sent."""
        upload = form.files.pop(name, None)
        if upload is None:
            return None
        return await asyncio.get_running_loop().run_in_executor(self.decoders, self.sandbox.decode, kind,
                                                                name.removesuffix("_file"), upload, folder / f"{new_id()}{ending}")

    async def speaker(self, form: Form, folder: Path) -> Inputs:
        """Who speaks: a photo that is sent, one that was left, or somebody stored. Refusal unless exactly one is named."""
        named = [name for name in ("photo", "face", "person") if form.fields.get(name) or name in form.files]
        if len(named) != 1:
            raise Refusal(422, "missing" if not named else "invalid_option",
                          f"found {' and '.join(named) or 'neither photo nor face nor person'}; expected exactly one of photo (a "
                          "file), face and person")
        return await self.named(named[0], form.fields.get(named[0], ""), await self.decoded(form, "image", "photo", folder))

    async def named(self, kind: str, name: str, photo: Optional[Decoded] = None) -> Inputs:
        """Who speaks, by the kind of name and the name."""
        if kind == "photo":
            return Inputs(photo=photo)
        if kind == "face":
            return Inputs(photo=self.faces.find(name))
        path = self.people.find(name)
        if path.is_dir():
            return Inputs(person=str(path))
        return Inputs(photo=await asyncio.to_thread(self.people.photo, path))


def _copy(file, path: Path) -> None:
    file.seek(0)
    with open(path, "wb") as out:
        shutil.copyfileobj(file, out, 1 << 20)
