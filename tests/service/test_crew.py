"""Workers die; what they were doing fails or is made again, and the service goes on."""
import asyncio
import os
import queue
import signal
import time

import pytest

from s3dnerf.service.crew import Crew
from s3dnerf.service.jobs import Inputs, Job, JobBook, new_id
from s3dnerf.service.messages import (Advanced, Cancel, Declaration, Failed, Finished, Full, Look, Options, Ready, Render,
                                      Seen, Speaker, Touching)
from s3dnerf.service.metrics import Metrics
from s3dnerf.service.settings import Refusal, Settings
from s3dnerf.service.worker import Worker


class Puppet(Worker):
    """A worker that says what it is told to, and keeps what it is sent."""

    def launch(self, settings):
        self.said, self.sent, self.unheard, self.gone = queue.Queue(), [], 0, False
        self.hear.__self__.everyone.append(self)

    def put(self, message):
        if not self.gone:  # the dead say nothing
            self.unheard, self.gone = self.unheard + 1, message is None
            self.said.put(message)

    def receive(self):
        message = self.said.get()
        if message is None:
            raise EOFError
        return message

    def _heard(self, message):
        self.unheard -= 1
        super()._heard(message)

    def send(self, command):
        self.sent.append(command)

    def end(self):
        self.put(None)

    def join(self):
        pass

    async def say(self, *messages):
        for message in messages:
            self.put(message)
        await self.hear.__self__.settled()


class Puppets(Crew):
    kind = Puppet

    def __init__(self, *parts):
        self.everyone = []
        super().__init__(*parts)

    async def settled(self):
        """Waits until everything that was said has been heard, and what follows from it has been done."""
        quiet, due = 0, time.monotonic() + 60
        while quiet < 3:  # what is heard may have something done in the next round
            assert time.monotonic() < due, "waited in vain"
            await asyncio.sleep(0.001)
            quiet = 0 if self.sending or any(worker.unheard for worker in self.everyone) else quiet + 1


@pytest.fixture
def stage(tmp_path):
    """Runs a play: a coroutine function of a crew with ready workers, and of what makes jobs."""
    def run(play, **settings):
        settings = Settings(**({"spare": False} | settings))

        async def act():
            book = JobBook(settings, tmp_path / "videos")
            crew = Puppets(settings, book, tmp_path / "workers", Metrics())

            def job():
                id = new_id()
                (book.folder / id).mkdir()
                made = book.add(Job(id, book.folder / id, Inputs(person="x"), Options(), Declaration("yes, I agree", "")))
                crew.fill()
                return made

            crew.start()
            for worker in crew.workers:
                await worker.say(Ready(1))
            await play(crew, job)
            await crew.stop()

        asyncio.run(act())
    return run


def test_a_job_that_is_touched_alone_when_its_worker_dies_fails_and_others_are_made_again(stage):
    async def play(crew, job):
        guilty, other = job(), job()
        first = crew.workers[0]
        await first.say(Touching((guilty.id,)), Advanced(guilty.id, 3, 1.0, b"part", None), None)
        assert guilty.state == "failed" and guilty.error["code"] == "crashed" and other.state == "queued"
        await crew.workers[0].say(Ready(2))
        assert crew.workers[0] is not first and other.state == "running" and not other.alone
        await crew.workers[0].say(Finished(other.id, None, b"film", b"", {"seconds": {}}))
        assert other.state == "done" and other.video.read_bytes() == b"film"
    stage(play)


def test_jobs_that_shared_a_batch_are_tried_once_more_each_alone(stage):
    async def play(crew, job):
        one, two, third = job(), job(), job()
        await crew.workers[0].say(Touching((one.id, two.id)), Advanced(one.id, 3, 1.0, b"part", None), None)
        assert [x.state for x in (one, two, third)] == ["queued"] * 3 and one.done == 0 and not one.stream.exists()
        await crew.workers[0].say(Ready(2))
        assert [x.state for x in (one, two, third)] == ["running", "queued", "queued"]
        await crew.workers[0].say(Touching((one.id,)), None)
        assert one.state == "failed"
        await crew.workers[0].say(Ready(3))
        assert [x.state for x in (two, third)] == ["running", "queued"]
        await crew.workers[0].say(Failed(two.id, "unusable", "no"))
        assert two.error == {"code": "unusable", "message": "no"} and third.state == "running"
    stage(play)


def test_a_spare_worker_takes_over_and_another_is_loaded(stage):
    async def play(crew, job):
        spare = crew.spare
        await spare.say(Ready(2))
        waiting = job()
        await crew.workers[0].say(None)
        assert crew.workers == [spare] and crew.spare not in (None, spare) and waiting.state == "running"
    stage(play, spare=True)


def test_workers_that_cannot_load_are_not_started_for_ever(stage):
    async def play(crew, job):
        crew.workers[0].ready, crew.failures = False, 0
        for _ in range(5):
            await crew.workers[0].say(Failed("", "weights", "no such weights"), None)
        assert crew.failures == 3 and not crew.ready and crew.why == "no such weights"
        with pytest.raises(Refusal, match="no such weights"):
            await crew.ask(lambda id: Look(id, Speaker(None, "")))
    stage(play)


def test_workers_share_and_are_not_overfilled(stage):
    async def play(crew, job):
        jobs = [job() for _ in range(6)]
        await crew.settled()
        assert [len(worker.jobs) for worker in crew.workers] == [2, 2]
        assert [x.state for x in jobs] == ["running"] * 4 + ["queued"] * 2
        assert sum(isinstance(command, Render) for worker in crew.workers for command in worker.sent) == 4
        crew.cancel(jobs[0])
        await crew.settled()
        assert jobs[4].state == "running" and any(isinstance(command, Cancel) for command in crew.workers[0].sent)
        late = Finished(jobs[0].id, None, b"late", b"", {"seconds": {}})
        await crew.workers[0].say(late)
        assert jobs[0].state == "cancelled" and not jobs[0].video.exists()
    stage(play, devices=("cpu", "cpu"), share=2)


def test_a_question_to_a_worker_that_dies_is_refused(stage):
    async def play(crew, job):
        asking = asyncio.create_task(crew.ask(lambda id: Look(id, Speaker(None, ""))))
        await crew.settled()
        await crew.workers[0].say(None)
        with pytest.raises(Refusal) as refusal:
            await asking
        assert refusal.value.status == 503
        await crew.workers[0].say(Ready(2))
        asking = asyncio.create_task(crew.ask(lambda id: Look(id, Speaker(None, ""))))
        await crew.settled()
        await crew.workers[0].say(Seen(next(iter(crew.answers)), {"faces": 1}))
        assert await asking == {"faces": 1} and not crew.answers
    stage(play)


def test_a_worker_that_takes_too_much_memory_is_replaced_without_a_pause(stage):
    async def play(crew, job):
        first, begun = crew.workers[0], job()
        await first.say(Full(5 << 30), Full(5 << 30))
        (second,) = crew.successors
        later = job()
        assert crew.workers == [first] and later.state == "running" and later.id in first.jobs  # until the other has loaded
        await second.say(Ready(2))
        assert crew.workers == [second] and crew.leaving == {first} and not first.ended
        third = job()
        assert third.id in second.jobs
        await first.say(Finished(begun.id, None, b"film", b"", {"seconds": {}}))
        assert begun.state == "done" and not first.ended
        crew.cancel(later)
        await crew.settled()
        assert first.ended and not crew.leaving and not crew.successors and third.state == "running"
        assert "replacements_total 1.0" in crew.metrics.text(0, 0, 0).decode() and crew.metrics.restarts._value.get() == 0
    stage(play)


def test_one_that_was_to_be_replaced_and_dies_or_whose_successor_does(stage):
    async def play(crew, job):
        first, waiting = crew.workers[0], job()
        await first.say(Full(5 << 30))
        (second,) = crew.successors
        await second.say(Failed("", "weights", "no room"), None)
        assert crew.workers == [first] and not crew.successors and waiting.state == "running"
        await first.say(Full(5 << 30))  # said again after a while
        (third,) = crew.successors
        await first.say(None)
        fourth = crew.workers[0]
        assert fourth not in (first, third) and waiting.state == "queued"
        await third.say(Ready(3))
        assert third.ended and crew.workers == [fourth] and not crew.leaving
        await fourth.say(Ready(4))
        assert waiting.state == "running"
        await fourth.say(Full(5 << 30))
        (fifth,) = crew.successors
        await fifth.say(Ready(5))
        await fourth.say(Touching((waiting.id,)), None)  # it dies after it was replaced
        assert waiting.state == "failed" and crew.workers == [fifth] and not crew.leaving
    stage(play)


def test_room_is_made_before_it_is_said_that_there_is_none(monkeypatch):
    from s3dnerf.errors import InputError
    from s3dnerf.service import worker

    now, taken, freed = [0.0], [900], []
    monkeypatch.setattr(worker.Room, "taken", lambda room: taken[0])
    monkeypatch.setattr(worker, "give_back_freed_memory", lambda: freed.append(taken[0]) or taken.__setitem__(0, min(taken[0], 950)))
    room = worker.Room(1000, lambda: now[0])
    assert room.exceeded() == 0 and not freed
    taken[0] = 1500
    assert room.exceeded() == 0 and freed == [1500]
    monkeypatch.setattr(worker, "give_back_freed_memory", lambda: False)
    taken[0] = 1500
    assert (room.exceeded(), room.exceeded()) == (1500, 0)
    now[0] = worker.AGAIN + 1
    assert room.exceeded() == 1500
    taken[0] = 2001
    assert room.exceeded() == 2001  # at once
    with pytest.raises(InputError, match="--worker-memory"):
        worker.Room(2000)


def test_videos_go_on_while_workers_outgrow_their_room(bundle, serve, photo, speech, monkeypatch):
    from s3dnerf.service import worker

    rooms, real = [], worker.Room.__init__
    monkeypatch.setattr(worker, "TIDY", 0.1)
    monkeypatch.setattr(worker.Room, "__init__", lambda room, size: (real(room, size), rooms.append(room))[0])
    running = serve(Settings(bundle, spare=False)).ready()
    jobs = [running.make(photo, speech, frame="face").json() for _ in range(2)]
    rooms[0].exceeded = lambda: int(1.5 * rooms[0].size) if len(rooms) == 1 else 0
    running.until(lambda: "s3dnerf_worker_replacements_total 1.0" in running.client.get("/metrics").text)
    jobs.append(running.make(photo, speech, frame="face").json())
    assert [running.ended(job)["state"] for job in jobs] == ["done"] * 3
    rooms[1].exceeded = lambda: 3 * rooms[1].size  # and one that has lost all measure ends
    running.until(lambda: "s3dnerf_worker_restarts_total 1.0" in running.client.get("/metrics").text)
    running.until(lambda: len(rooms) == 3)
    assert running.ended(running.make(photo, speech, frame="face").json())["state"] == "done"


def test_of_too_many_ended_videos_the_first_go(tmp_path):
    book = JobBook(Settings(most_videos=2), tmp_path / "videos")
    for name in "abcd":
        (book.folder / name).mkdir()
        job = book.add(Job(name, book.folder / name, Inputs(person="x"), Options(), Declaration("yes, I agree", "")))
        if name != "b":
            job.end("done")
            time.sleep(0.01)
    book.expire()
    assert list(book.jobs) == ["b", "c", "d"] and not (book.folder / "a").exists()


def test_a_killed_worker_fails_its_job_alone_and_the_next_succeeds(bundle, serve, photo, speech, wav, babble):
    """With a real process, killed with SIGKILL in the middle of a video."""
    running = serve(Settings(bundle), Crew).ready()
    crew = running.service.crew
    running.until(lambda: crew.spare is not None and crew.spare.ready)
    spare = crew.spare
    job = running.make(photo, wav(babble(100))).json()  # far from done when it is killed
    running.until(lambda: running.client.get(job["url"]).json()["frames_done"] > 0)
    os.kill(crew.workers[0].process.pid, signal.SIGKILL)
    told = running.ended(job)
    assert told["state"] == "failed" and told["error"]["code"] == "crashed" and "another attempt" in told["error"]["message"]
    following = running.ended(running.make(photo, speech, frame="face").json())
    assert following["state"] == "done" and crew.workers == [spare], "by the one that was loaded already"
    assert "s3dnerf_worker_restarts_total 1.0" in running.client.get("/metrics").text
    assert not list((running.service.root / "workers" / "worker-0").rglob("*"))
