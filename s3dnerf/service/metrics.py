"""What Prometheus is told."""
from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from s3dnerf.service.jobs import Job


class Metrics:
    """The figures of one server."""

    def __init__(self):
        self.registry = registry = CollectorRegistry()
        self.videos = Counter("s3dnerf_videos", "Videos that ended, by how.", ["state"], registry=registry)
        self.frames = Counter("s3dnerf_frames", "Frames that were rendered.", registry=registry)
        self.refused = Counter("s3dnerf_refused", "Requests that were refused, by code.", ["code"], registry=registry)
        self.restarts = Counter("s3dnerf_worker_restarts", "Workers that died.", registry=registry)
        self.replaced = Counter("s3dnerf_worker_replacements", "Workers that took too much memory.", registry=registry)
        self.queued = Gauge("s3dnerf_queued", "Videos that wait.", registry=registry)
        self.running = Gauge("s3dnerf_running", "Videos that are being made.", registry=registry)
        self.sessions = Gauge("s3dnerf_sessions", "Open sessions.", registry=registry)
        self.memory = Gauge("s3dnerf_memory_bytes", "Resident memory.", ["part"], registry=registry)
        self.seconds = Histogram("s3dnerf_video_seconds", "From the request to the finished video.", registry=registry,
                                 buckets=(1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800))
        self.stages = Counter("s3dnerf_stage_seconds", "Where workers' time went.", ["stage"], registry=registry)

    def finished(self, job: Job, statistics: dict) -> None:
        """Notes a video that is done."""
        import time

        self.videos.labels("done").inc()
        self.seconds.observe(time.time() - job.created)
        for stage, seconds in statistics["seconds"].items():
            self.stages.labels(stage).inc(seconds)

    def text(self, queued: int, running: int, sessions: int) -> bytes:
        """Everything, as it is now."""
        import psutil

        me = psutil.Process()
        self.memory.labels("server").set(me.memory_info().rss)
        total = 0
        for process in me.children(recursive=True):
            try:
                total += process.memory_info().rss
            except psutil.Error:  # it has just ended
                continue
        self.memory.labels("workers").set(total)
        self.queued.set(queued)
        self.running.set(running)
        self.sessions.set(sessions)
        return generate_latest(self.registry)
