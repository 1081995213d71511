"""Routes of the review page: files of the page, studies, voxels, holds, opinions, corrections."""

from __future__ import annotations

import gzip
import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, FastAPI, Query, Request
from fastapi import Path as PathPart
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from pipelines.review.pages import ServedPage
from pipelines.review.records import (
    RESULT,
    hold_record,
    label_voxels,
    opinion_record,
    study_record,
    study_rows,
    voxels_of,
)
from segmed.archive.review.agreement import agreements
from segmed.archive.review.archive import ReviewArchive, ReviewedStudy
from segmed.archive.review.store import StudyHeldError
from segmed.archive.triage import MEANINGS
from segmed.errors import SegmedError, ServiceError
from segmed.report.viewer import NIIVUE
from segmed.validation import first_fault

ASSETS = Path(__file__).parent / "assets"
TYPES = {
    "review.html": "text/html; charset=utf-8",
    "review.css": "text/css; charset=utf-8",
    **{
        f"{name}.js": "text/javascript; charset=utf-8"
        for name in ("api", "drawing", "geometry", "list", "page", "panel", "slices", "solid")
    },
}
"""The files of the page; nothing else is read by name."""

MAX_JSON_BYTES = 64_000
Key = Annotated[str, PathPart(pattern=r"^[0-9a-f]{64}$")]
Session = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{8,64}$")]


class Holding(BaseModel):
    """Request for a study."""

    model_config = ConfigDict(extra="forbid")

    session: Session
    author: str


class NewOpinion(Holding):
    """Opinion as the page sends it."""

    verdict: str = ""
    comment: str = ""
    correction: int | None = None


def review_app(
    archive: ReviewArchive, author: str = "", pages: Sequence[ServedPage] = ()
) -> FastAPI:
    """The application of an archive, without the check of the token.

    Args:
        archive: The archive.
        author: Name that the page suggests for its reviewer.
        pages: Further pages, which the page has links to.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.state.archive, app.state.author, app.state.pages = archive, author, tuple(pages)
    app.include_router(router)
    for page in pages:
        app.include_router(page.router)
    app.add_exception_handler(SegmedError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    return app


router = APIRouter()


@router.get("/")
def page() -> Response:
    """The page."""
    return _asset("review.html")


@router.get("/assets/{name}")
def asset(name: str) -> Response:
    """A file of the page."""
    if name == "niivue.js":
        return Response(gzip.decompress(NIIVUE.read_bytes()), media_type="text/javascript")
    if name not in TYPES:
        raise HTTPException(404, "no such file")
    return _asset(name)


@cache
def _content(name: str) -> bytes:
    return (ASSETS / name).read_bytes()


def _asset(name: str) -> Response:
    return Response(_content(name), media_type=TYPES[name])


@router.get("/api/archive")
def describe(request: Request) -> dict[str, Any]:
    """Name of the archive, meanings of the flags, the suggested reviewer and further pages."""
    archive = _archive(request)
    return {
        "name": archive.out_dir.resolve().name,
        "author": request.app.state.author,
        "meanings": MEANINGS,
        "pages": [
            {"title": page.title, "path": page.path}
            for page in request.app.state.pages
            if page.is_shown(archive)
        ],
    }


@router.get("/api/studies")
def studies(request: Request) -> list[dict[str, Any]]:
    """All studies, the worst first."""
    return study_rows(_archive(request))


@router.get("/api/studies/{key}")
def study(request: Request, key: Key) -> dict[str, Any]:
    """One study."""
    archive = _archive(request)
    return study_record(archive, _study(archive, key))


@router.get("/api/studies/{key}/agreement")
def agreement(request: Request, key: Key) -> list[dict[str, Any]]:
    """Dice between the label maps of a study."""
    archive = _archive(request)
    return [asdict(one) for one in agreements(archive, _study(archive, key))]


@router.get("/api/studies/{key}/image")
def image(request: Request, key: Key, channel: Annotated[int, Query(ge=0, le=999)] = 0) -> Response:
    """Voxels of one channel, 16-bit integers."""
    archive = _archive(request)
    found = archive.image(_study(archive, key))
    if channel >= found.shape[0]:
        raise HTTPException(404, f"the image has {found.shape[0]} channels")
    content, headers = voxels_of(found, channel)
    return Response(content, media_type="application/octet-stream", headers=headers)


@router.get("/api/studies/{key}/maps/{name}")
def label_map(
    request: Request, key: Key, name: Annotated[str, PathPart(pattern=r"^[a-z0-9]{1,64}$")]
) -> Response:
    """Voxels of a label map, 16-bit integers."""
    archive = _archive(request)
    found = _study(archive, key)
    return Response(
        label_voxels(_map_named(archive, found, name)), media_type="application/octet-stream"
    )


@router.post("/api/studies/{key}/hold")
def hold(request: Request, key: Key, body: Holding) -> dict[str, Any]:
    """Take a study, or keep it."""
    archive = _archive(request)
    return hold_record(
        archive.store.hold(_study(archive, key).entry.key, body.author, body.session)
    )


@router.post("/api/studies/{key}/release")
def release(request: Request, key: Key, body: Holding) -> dict[str, Any]:
    """Give a study back."""
    archive = _archive(request)
    archive.store.release(_study(archive, key).entry.key, body.session)
    return {}


@router.post("/api/studies/{key}/opinions")
def add_opinion(request: Request, key: Key, body: NewOpinion) -> dict[str, Any]:
    """Record an opinion."""
    archive = _archive(request)
    opinion = archive.store.add_opinion(
        _study(archive, key).entry.key,
        body.author,
        body.verdict,
        body.comment,
        correction=body.correction,
        session=body.session,
    )
    return opinion_record(opinion)


@router.post("/api/studies/{key}/corrections")
async def add_correction(
    request: Request,
    key: Key,
    session: Annotated[str, Query(pattern=r"^[A-Za-z0-9_-]{8,64}$")],
    author: Annotated[str, Query(min_length=1, max_length=200)],
    base: Annotated[str, Query(pattern=r"^[a-z0-9]{1,64}$")] = RESULT,
) -> dict[str, Any]:
    """Save a label map: unsigned 16-bit integers, first axis fastest."""
    archive = _archive(request)
    found = await run_in_threadpool(_study, archive, key)
    shape = tuple((await run_in_threadpool(archive.image, found)).shape[1:])
    content = await _body(request, 2 * math.prod(shape))
    correction = await run_in_threadpool(
        _save, archive, found, np.frombuffer(content, "<u2").reshape(shape, order="F"),
        author, session, base,
    )  # fmt: skip
    return {"id": correction}


def _save(
    archive: ReviewArchive,
    found: ReviewedStudy,
    values: Any,
    author: str,
    session: str,
    base: str,
) -> int:
    digest = _digest_of(archive, found, base)
    return archive.save(
        found,
        values.astype(np.int32),
        author,
        origin="page",
        base=digest,
        session=session,
    ).id


async def _body(request: Request, expected: int) -> bytes:
    """The body of a request, which has exactly the expected length."""
    stated = request.headers.get("content-length", "0")
    if stated.isdigit() and int(stated) > expected:
        raise HTTPException(413, f"the label map of this image has {expected} bytes, got {stated}")
    parts, length = [], 0
    async for part in request.stream():
        length += len(part)
        if length > expected:
            raise HTTPException(413, f"the label map of this image has {expected} bytes, got more")
        parts.append(part)
    if length != expected:
        raise HTTPException(400, f"the label map of this image has {expected} bytes, got {length}")
    return b"".join(parts)


def _archive(request: Request) -> ReviewArchive:
    archive: ReviewArchive = request.app.state.archive
    return archive


def _study(archive: ReviewArchive, key: str) -> ReviewedStudy:
    found = next((one for one in archive.studies() if one.entry.key == key), None)
    if found is None:
        raise HTTPException(404, "no segmented study of this archive has this key")
    return found


def _map_named(archive: ReviewArchive, found: ReviewedStudy, name: str) -> Any:
    if name == RESULT:
        return archive.result(found)
    for correction in archive.store.corrections(found.entry.key):
        if name == f"c{correction.id}":
            return archive.corrected(found, correction)
    for entry in found.earlier:
        if name == entry.key:
            return archive.result(found, entry)
    raise HTTPException(404, "this study has no such label map")


def _digest_of(archive: ReviewArchive, found: ReviewedStudy, name: str) -> str:
    """SHA-256 of the file of a label map of a study."""
    digests = {RESULT: found.entry.output_sha256, **{e.key: e.output_sha256 for e in found.earlier}}
    digests |= {f"c{one.id}": one.sha256 for one in archive.store.corrections(found.entry.key)}
    if name not in digests:
        raise HTTPException(404, "this study has no such label map")
    return digests[name] or ""


def _answer_error(request: Request, error: Exception) -> Response:
    status = 409 if isinstance(error, StudyHeldError) else 400
    status = 503 if isinstance(error, ServiceError) else status
    return JSONResponse({"detail": " ".join(str(error).split())}, status)


def _answer_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return JSONResponse({"detail": str(first_fault(error))}, 422)
