"""The bodies of the API, for its OpenAPI document."""
from __future__ import annotations

from typing import Optional

from fastapi import Security
from fastapi.security import APIKeyHeader
from pydantic import BaseModel, Field


class ErrorDetail(BaseModel):
    """What is wrong."""

    code: str = Field(description="for programs")
    message: str = Field(description="one line for people: what was found, what was expected, what helps")


class ErrorBody(BaseModel):
    """Every answer of status 400 and above."""

    error: ErrorDetail


class VideoJob(BaseModel):
    """A video, from its request to its end."""

    id: str
    state: str = Field(description="queued, running, done, failed or cancelled")
    stage: str = Field(description="of a running one: reading, identity, rendering or finishing")
    position: Optional[int] = Field(description="in the queue, from 1 on")
    frames_done: int
    frames_total: Optional[int]
    frames_per_second: Optional[float]
    seconds_left: Optional[float]
    width: Optional[int]
    height: Optional[int]
    remarks: list[str]
    error: Optional[ErrorDetail]
    created: float = Field(description="seconds since 1970")
    expires: Optional[float]
    url: str
    events_url: str
    video_url: str
    preview_url: str


class VideoList(BaseModel):
    """Videos, newest first."""

    videos: list[VideoJob]


class Rectangle(BaseModel):
    """Pixels of the upright photo."""

    left: float
    top: float
    width: float
    height: float


class FaceSeen(BaseModel):
    """What is seen in a photo."""

    id: Optional[str] = Field(description="stands for the photo, where it was to be kept")
    width: int
    height: int
    box: Rectangle = Field(description="the square that the model sees")
    face: Rectangle
    faces: int
    warnings: list[ErrorDetail]


class Person(BaseModel):
    """Somebody whom the service knows."""

    name: str
    kind: str = Field(description="learned or photo")


class PeopleList(BaseModel):
    """Everybody whom the service knows."""

    people: list[Person]


class LimitsBody(BaseModel):
    """What is too much."""

    max_upload_bytes: int
    max_pixels: int
    max_seconds: float
    sample_rate: int
    fps: int
    api_key: bool = Field(description="whether a key is wanted")
    image_types: list[str]
    sound_types: list[str]


BINARY, TEXT = {"type": "string", "format": "binary"}, {"type": "string"}
SPEAKER = {"photo": BINARY | {"description": "JPEG, PNG or WebP"}, "face": TEXT | {"description": "id of POST /v1/faces"},
           "person": TEXT | {"description": "name of GET /v1/people"}}
VIEW = {"frame": {"type": "string", "enum": ["full", "face"]}, "mouth_gain": {"type": "number", "minimum": 0, "maximum": 10},
        "camera": TEXT | {"example": "15,5,1.3"}, "eyes": TEXT | {"example": "15/min"}, "background": TEXT | {"example": "#00ff00"},
        "background_file": BINARY}
SWITCH = {"type": "boolean", "default": False}


def form(required: list[str], **fields) -> dict:
    """The part of an OpenAPI operation that describes a multipart form."""
    schema = {"type": "object", "properties": fields, "required": required, "additionalProperties": False}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


VIDEO_FORM = form(["consent"], **SPEAKER, **VIEW, speech=BINARY, consent=TEXT | {"minLength": 10, "maxLength": 500},
                  pose={"type": "string", "enum": ["natural", "still"]}, pose_file=BINARY, drive_file=BINARY,
                  smooth={"type": "number", "minimum": 0, "maximum": 2}, seed={"type": "integer", "minimum": 0}, label=SWITCH,
                  keep=SWITCH)
FACE_FORM = form(["photo"], photo=BINARY, keep=SWITCH)
PREVIEW_FORM = form([], **SPEAKER, **VIEW, mouth={"type": "string", "enum": ["rest", "open"]})


def fields_of(form: dict) -> dict[str, bool]:
    """The names of a form's fields, and whether each is a file."""
    schema = form["requestBody"]["content"]["multipart/form-data"]["schema"]
    return {name: field.get("format") == "binary" for name, field in schema["properties"].items()}


ERRORS = {status: {"model": ErrorBody} for status in (400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 500, 503)}
GALLERY = {"parameters": [{"name": "X-Gallery", "in": "header", "required": False, "description": "under which a client keeps what "
                           "it makes together, made up by it", "schema": TEXT | {"pattern": "^[A-Za-z0-9_-]{16,64}$"}}]}
KEY = [Security(APIKeyHeader(name="X-API-Key", auto_error=False, description="where the service was started with one"))]
"""for the document alone: the gate has asked for the key"""


def gives(kind: str) -> dict:
    """The part of an OpenAPI operation that says of what kind an answer that is no JSON is."""
    return {200: {"description": "Successful Response", "content": {kind: {"schema": BINARY}}}}
