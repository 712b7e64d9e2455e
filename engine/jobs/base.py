"""What a job is: typed parameters, steps, and a context to report to."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import Cancelled, ParameterError


@dataclass(frozen=True)
class Param:
    """One parameter of a job: the single definition from which operator properties, command-line
    options and docs are made or checked.

    type: str, int, float, bool; `choices` for an enumeration of strings; `size` > 0 for a vector.
    """

    name: str
    type: type
    default: Any
    help: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    size: int = 0

    def check(self, value: Any) -> Any:
        """The value, converted; raises ParameterError naming the parameter and its bounds."""
        if self.size:
            values = list(value)
            if values and len(values) != self.size:
                raise ParameterError(f"{self.name} takes {self.size} numbers, not {len(values)}.")
            return [self._check_one(v) for v in values]
        return self._check_one(value)

    def _check_one(self, value: Any) -> Any:
        if self.type is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, self.type) or (self.type is int and isinstance(value, bool)):
            raise ParameterError(f"{self.name} must be of type {self.type.__name__}.")
        if self.choices and value not in self.choices:
            raise ParameterError(f"{self.name} must be one of {', '.join(self.choices)}.")
        if self.type in (int, float) and not np.isfinite(value):
            raise ParameterError(f"{self.name} must be a finite number.")
        if self.minimum is not None and value < self.minimum:
            raise ParameterError(
                f"{self.name} must be at least {self.minimum} {self.unit}".strip() + "."
            )
        if self.maximum is not None and value > self.maximum:
            raise ParameterError(
                f"{self.name} must be at most {self.maximum} {self.unit}".strip() + "."
            )
        return value


def _ignore(*_: Any) -> None:
    return None


@dataclass
class Context:
    """What a running job may say and ask.

    progress(fraction 0..1, step name, seconds left or None), preview(uint8 [H, W, 3]) and
    item(facts, uint8 [H, W, 3]) report: of previews only the newest matters, of items every one;
    check() raises Cancelled when the user has cancelled: call it at least every 0.5 s of work.
    device: a torch device string; precision: 'auto', 'float32' or 'bfloat16'.
    """

    on_progress: Callable[[float, str, float | None], None] = _ignore
    on_preview: Callable[[np.ndarray], None] = _ignore
    is_cancelled: Callable[[], bool] = lambda: False
    device: str = "cpu"
    precision: str = "auto"
    on_item: Callable[[dict[str, Any], np.ndarray], None] = _ignore
    timings: dict[str, float] = field(default_factory=dict)
    _step: tuple[str, float] | None = None

    def check(self) -> None:
        if self.is_cancelled():
            raise Cancelled()

    def progress(self, fraction: float, step: str, seconds_left: float | None = None) -> None:
        """Report, and check for cancellation. The time between the first report of one step name
        and the first of the next is added to `timings` (call finish() at the end)."""
        self.check()
        now = time.perf_counter()
        if self._step is None or self._step[0] != step:
            self.finish()
            self._step = (step, now)
        self.on_progress(float(min(max(fraction, 0.0), 1.0)), step, seconds_left)

    def preview(self, image: np.ndarray) -> None:
        self.check()
        self.on_preview(image)

    def item(self, meta: dict[str, Any], image: np.ndarray) -> None:
        """Hand out a finished part of the result at once: JSON-able facts, and its picture
        (uint8 [H, W, 3], row 0 = top). Every item arrives, in order, whatever becomes of the job;
        then check for cancellation."""
        self.on_item(meta, image)
        self.check()

    def finish(self) -> None:
        """Close the timing of the current step."""
        if self._step is not None:
            name, start = self._step
            self.timings[name] = self.timings.get(name, 0.0) + time.perf_counter() - start
            self._step = None

    def result(self, meta: dict[str, Any], arrays: dict[str, np.ndarray] | None = None) -> Result:
        """The job's result, its facts with how long each step took."""
        self.finish()
        timings = {step: round(seconds, 3) for step, seconds in self.timings.items()}
        return Result({**meta, "timings": timings}, arrays or {})


@dataclass
class Result:
    """What a job hands back: JSON-able facts, and arrays that travel as safetensors."""

    meta: dict[str, Any]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """A kind of work. run(params, context) -> Result; params hold every key of `params`.

    folder: the parameter that names the folder into which run() itself writes, if it does: the
    command line's --out.
    """

    name: str
    help: str
    params: tuple[Param, ...]
    run: Callable[[dict[str, Any], Context], Result]
    folder: str = ""

    def checked(self, given: dict[str, Any]) -> dict[str, Any]:
        """`given` with defaults filled in and every value checked; unknown names are refused."""
        known = {p.name: p for p in self.params}
        for name in given:
            if name not in known:
                raise ParameterError(f"{self.name} has no parameter named {name}.")
        return {n: p.check(given.get(n, p.default)) for n, p in known.items()}
