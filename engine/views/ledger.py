"""What of a sequence of pictures is on disk and complete, kept in a small file beside them."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from engine.surface.export import output_error, write_whole


class Ledger:
    """The file `<name>.views.jsonl` in a folder: which pictures there were made from what, a line
    of JSON each.

    A picture counts as done if it was recorded with the same key and is as long as it was then. A
    line is added as soon as its picture is there, so a process that dies forgets none. Lines that
    are damaged count as missing; the last one of a file counts.
    """

    def __init__(self, folder: Path, name: str, inside: str = "") -> None:
        """inside: the folder within the folder in which the pictures are."""
        self.path = folder / f"{name}.views.jsonl"
        self._folder = folder
        self._lines: dict[str, dict] = {}
        text = ""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            text = self.path.read_text("utf-8")
        for line in text.splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                facts = json.loads(line)
                self._lines[facts["file"]] = facts
        for part in (folder / inside).glob(f".{name}_*.part"):  # what a killed process left behind
            with contextlib.suppress(OSError):
                part.unlink()
        self._ends_in_a_line = not text or text.endswith("\n")

    def has(self, path: Path, key: str) -> bool:
        """Whether this file is there, made from what the key stands for."""
        facts = self._lines.get(self._known_as(path), {})
        if facts.get("key") != key:
            return False
        try:
            return path.stat().st_size == facts.get("bytes")
        except OSError:
            return False

    def record(self, path: Path, key: str) -> None:
        """The file has just been written. Raises OutputError."""
        name = self._known_as(path)
        self._lines[name] = {"file": name, "key": key, "bytes": path.stat().st_size}
        line = json.dumps(self._lines[name]) + "\n"
        try:
            with open(self.path, "a", encoding="utf-8") as handle:
                handle.write(line if self._ends_in_a_line else "\n" + line)
        except OSError as error:
            raise output_error(self.path, error) from error
        self._ends_in_a_line = True

    def tidy(self) -> None:
        """Write the file anew, one line a picture, in order. Raises OutputError."""
        lines = [json.dumps(facts) + "\n" for _, facts in sorted(self._lines.items())]
        write_whole({self.path: "".join(lines).encode()})

    def _known_as(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()
