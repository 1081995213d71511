"""`segmed review`."""

from __future__ import annotations

import getpass
import shlex
import shutil
import subprocess
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.arguments import require_archive
from pipelines.terminal.console import JsonOption, emit, note, program
from segmed.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from segmed.archive.review.archive import ReviewArchive, ReviewedStudy

OPENERS = ("browser", "slicer")
SLICER = "Slicer"
"""Name of 3D Slicer's program."""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(review)


def review(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Output folder of an archive run.")],
    study: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Study: part of its name, path or UID. Default: the first of the list to review.",
        ),
    ] = None,
    opener: Annotated[
        str,
        typer.Option(
            "--open",
            help="Program to open: browser, for all studies, or slicer (3D Slicer), for one.",
        ),
    ] = "browser",
    read: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Save a .seg.nrrd file from 3D Slicer as a correction of --study.",
        ),
    ] = None,
    accept: Annotated[
        bool, typer.Option("--accept", help="Also accept the correction that is read.")
    ] = False,
    author: Annotated[
        str | None, typer.Option(help="Name of the reviewer. Default: the login name.")
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on this machine; 0: any free one.")
    ] = 0,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Only print the address of the page.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Look at the results of an archive, accept, reject or correct them; the worst come first.

    The page is served to this machine alone, at an address with a token, until Ctrl-C. Opinions and
    corrections are kept in the folder; results stay as they are.

    Example: segmed review segmentations
    """
    if opener not in OPENERS:
        raise unknown_name("program", opener, OPENERS)
    if read is not None and study is None:
        raise UsageError("--read needs the study that the file belongs to: add --study TEXT")
    require_archive(out)
    from segmed.archive.review.store import named_author

    name = named_author(getpass.getuser() if author is None else author)
    if read is None and opener == "browser":
        _serve(out, name, port, browser=not no_browser, as_json=as_json)
        return
    from segmed.archive.review.archive import ReviewArchive

    archive = ReviewArchive(out)
    chosen = _chosen(archive, study)
    if read is None:
        read = _edited_in_slicer(archive, chosen, as_json=as_json)
    if read is not None:
        _read_back(archive, chosen, read, name, accept=accept, as_json=as_json)


def _serve(out: Path, author: str, port: int, *, browser: bool, as_json: bool) -> None:
    from pipelines.review.server import serve_review
    from segmed.archive.watch.snapshot import watch_folder

    def started(address: str) -> None:
        record, lines = {"address": address}, [f"review: {address}"]
        if watch_folder(out) is not None:
            record["queue"] = f"{address}queue"
            lines.append(f"queue of the watch: {address}queue")
        emit(record, lines, as_json=as_json)
        note("serving this machine alone; stop with Ctrl-C")
        if browser and not as_json:
            webbrowser.open(address)

    try:
        serve_review(out, author=author, port=port, on_start=started)
    except KeyboardInterrupt:
        note("review ended; opinions and corrections are kept")


def _chosen(archive: ReviewArchive, text: str | None) -> ReviewedStudy:
    from segmed.archive.review.judgement import judge_study

    if text is not None:
        return archive.study(text)
    for study in archive.studies():
        if judge_study(archive.store.opinions(study.entry.key)).state == "open":
            return study
    raise UsageError(f"every study of {archive.out_dir} is judged: name one by --study")


def _edited_in_slicer(
    archive: ReviewArchive, study: ReviewedStudy, *, as_json: bool
) -> Path | None:
    """The file that was corrected, if 3D Slicer runs here; else None."""
    from segmed.archive.review.slicer_folder import write_slicer_folder

    folder = write_slicer_folder(archive, study)
    slicer = shutil.which(SLICER)
    back = (
        f"{program()} review {shlex.quote(str(archive.out_dir))} --study {study.entry.study} "
        f"--read {shlex.quote(str(folder.segmentation))}"
    )
    open_it = f"{SLICER} --python-script {shlex.quote(str(folder.script))}"
    record = {"segmentation": str(folder.segmentation), "open": open_it, "read_back": back}
    lines = [f"study: {study.entry.study}", f"segmentation: {folder.segmentation}"]
    if slicer is None:
        emit(record, [*lines, f"open it: {open_it}", f"then: {back}"], as_json=as_json)
        return None
    if not as_json:
        emit(record, lines, as_json=False)
    note("3D Slicer is open: correct the segmentation, save it under its name, and close")
    subprocess.run([slicer, "--python-script", str(folder.script)], check=False)
    if folder.is_changed:
        return folder.segmentation
    emit(record, [f"not changed; to read it later: {back}"], as_json=as_json)
    return None


def _read_back(
    archive: ReviewArchive,
    study: ReviewedStudy,
    path: Path,
    author: str,
    *,
    accept: bool,
    as_json: bool,
) -> None:
    from segmed.archive.review.slicer_folder import read_from_slicer

    if not path.is_file():
        raise UsageError(f"--read {path}: there is no such file")
    correction = read_from_slicer(archive, study, path, author)
    if accept:
        archive.store.add_opinion(study.entry.key, author, "accepted", correction=correction.id)
    saved = archive.out_dir / correction.file
    record = {"study": study.entry.study, "correction": correction.id, "file": str(saved)}
    word = "accepted" if accept else "saved; accept it on the page, or with --accept"
    emit(
        {**record, "accepted": accept},
        [f"correction {correction.id} of study {study.entry.study}: {saved}, {word}"],
        as_json=as_json,
    )
