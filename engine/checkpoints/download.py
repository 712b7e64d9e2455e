"""A file from the internet: resumed where it was cut off, checked before it counts, whole or not at
all. Standard library only.

What has arrived lies in NAME.part beside the target until all of it is there and its hash is right;
then it is renamed. A cut connection, a time-out or a cancellation leave the part, and the next call
goes on where it ended. A wrong size or hash removes it.

The connection is read in a thread, so that the caller is never held up by a server that does not
answer: `check` is called five times a second.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import queue
import shutil
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .. import __version__
from ..errors import DownloadError

PIECE = 1 << 20  # bytes
SILENCE = 30.0  # seconds without a byte after which a server counts as dead
TRIES = 3  # connections that are cut in one call before it gives up
_TICK = 0.2
_SPARE = 64 << 20  # bytes that stay free on the disk
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_AGAIN = "Try again: it goes on where it ended."

Progress = Callable[[int, int], None]


def part_of(target: Path) -> Path:
    """Where an unfinished download of this file lies."""
    return target.with_name(f"{target.name}.part")


def download(
    address: str,
    target: Path,
    size: int,
    sha256: str,
    progress: Progress = lambda done, size: None,
    check: Callable[[], None] = lambda: None,
    silence: float = SILENCE,
) -> Path:
    """Fetch a file of known size (bytes) and SHA-256 (hex) to `target`; its folder is made.

    progress(bytes that are there, size); check: called often, may raise to cancel. A target that
    is there already is only checked. Raises DownloadError, with a sentence that says whether the
    part was kept.
    """
    part = part_of(target)
    check_address(address)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_file() and target.stat().st_size == size:
            if _hash(target, check) == sha256:
                return target
        have = part.stat().st_size if part.is_file() else 0
        if have > size:  # of another version, or no part of ours
            part.unlink()
            have = 0
        if shutil.disk_usage(target.parent).free < size - have + _SPARE:
            raise DownloadError(
                f"The disk is too full: {(size - have) / 1e9:.1f} GB are needed.",
                "Make room, or choose another models folder.",
            )
        tries = 0
        while (have := part.stat().st_size if part.is_file() else 0) < size:
            before = have
            trouble = _go_on(address, part, have, size, progress, check, silence)
            if (have := part.stat().st_size) >= size:
                break
            tries = 0 if have - before > 16 * PIECE else tries + 1
            silent = have == before  # a connection that gave nothing will not give more at once
            if trouble is not None and (trouble.final or silent or tries >= TRIES):
                raise trouble
            if trouble is None and tries >= TRIES:
                raise DownloadError("The server ends the file too early, again and again.", _AGAIN)
        if part.stat().st_size != size or _hash(part, check) != sha256:
            part.unlink()
            raise DownloadError(
                f"What the server sent is not {target.name}: its SHA-256 is wrong.",
                "It was removed. Try again later, or get the file from the model's own page.",
            )
        os.replace(part, target)
    except OSError as error:
        raise DownloadError(
            f"The download cannot be written to {target.parent}: {error.strerror or error}.",
            "Choose another models folder, or make room in it.",
        ) from error
    return target


def check_address(address: str) -> None:
    """Raises DownloadError unless the address is https (or http to this machine itself)."""
    try:
        parts = urllib.parse.urlsplit(address)
        safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    except ValueError:
        safe = False
    if not safe:
        raise DownloadError("The download's address is not safe.", "Only https is followed.")


class _Trouble(DownloadError):
    """A connection's end. final: trying again at once would be of no use."""

    final = False


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows servers that point elsewhere, but only to addresses that check_address accepts."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _go_on(
    address: str,
    part: Path,
    have: int,
    size: int,
    progress: Progress,
    check: Callable[[], None],
    silence: float,
) -> _Trouble | None:
    """One connection: append what it gives to `part`. What ended it early, or None."""
    pieces: queue.Queue[tuple[str, object]] = queue.Queue(maxsize=8)
    stop = threading.Event()
    thread = threading.Thread(
        target=_read, args=(address, have, silence, pieces, stop), name="download", daemon=True
    )
    thread.start()
    waited = 0.0
    try:
        with open(part, "ab") as file:
            while True:
                check()
                try:
                    kind, value = pieces.get(timeout=_TICK)
                except queue.Empty:
                    waited += _TICK
                    if waited > silence + 5:  # the thread's own time-out comes first
                        return _trouble("The server does not answer any more.", _AGAIN)
                    continue
                waited = 0.0
                if kind == "data":
                    file.write(value)
                    progress(min(file.tell(), size), size)
                    if file.tell() > size:
                        return None  # too long: the check of the whole says so
                elif kind == "anew":  # the server cannot go on: from the beginning
                    file.truncate(0)
                elif kind == "end":
                    return None
                else:
                    return value
    finally:
        stop.set()


def _read(
    address: str, have: int, silence: float, pieces: queue.Queue, stop: threading.Event
) -> None:
    """In a thread: the answer's bytes, then how it ended."""

    def put(kind: str, value: object = None) -> None:
        while not stop.is_set():
            with suppress(queue.Full):
                pieces.put((kind, value), timeout=_TICK)
                return

    try:
        request = urllib.request.Request(address)
        request.add_header("User-Agent", f"triplane/{__version__}")
        request.add_header("Accept-Encoding", "identity")
        if have:
            request.add_header("Range", f"bytes={have}-")
        opener = urllib.request.build_opener(_SafeRedirects)
        with opener.open(request, timeout=silence) as answer:
            if have and answer.status != 206:
                put("anew")
            elif have and not _starts_at(answer, have):
                put("anew")
                put("trouble", _trouble("The server sent another part than was asked for.", _AGAIN))
                return
            while not stop.is_set():
                data = answer.read1(PIECE)
                if not data:
                    break
                put("data", data)
        put("end")
    except Exception as error:
        put("trouble", _explained(error))


def _starts_at(answer: http.client.HTTPResponse, have: int) -> bool:
    return (answer.headers.get("Content-Range") or "").startswith(f"bytes {have}-")


def _explained(error: Exception) -> _Trouble:
    """What ended a connection, for the user."""
    if isinstance(error, DownloadError):  # a redirection that is not followed
        made = _trouble(error.sentence, error.remedy)
        made.final = True
        return made
    if isinstance(error, urllib.error.HTTPError):
        made = _trouble(
            f"The server refuses the file: {error.code} {error.reason}.",
            "It may have moved: see the model's own page, and add the file from disk.",
        )
        made.final = error.code < 500 and error.code != 416
        error.close()
        return made
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return _trouble("The server does not answer.", _AGAIN)
    if isinstance(error, urllib.error.URLError):
        made = _trouble(
            f"The server cannot be reached: {getattr(reason, 'strerror', None) or reason}.",
            "Check the connection, then try again: it goes on where it ended.",
        )
        return made
    return _trouble("The connection was cut.", _AGAIN)


def _trouble(sentence: str, remedy: str) -> _Trouble:
    return _Trouble(sentence, remedy)


def _hash(path: Path, check: Callable[[], None]) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while data := file.read(4 * PIECE):
            check()
            digest.update(data)
    return digest.hexdigest()
