"""What the job `compare` does. Imports torch: only from inside a job's run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.checkpoints import registry
from engine.checkpoints.default import load_default
from engine.errors import Cancelled, ParameterError, TriplaneError
from engine.inversion import compare
from engine.inversion.evidence import measure
from engine.inversion.methods import METHODS, invert
from engine.inversion.quality import Quality, judge
from engine.inversion.reconstruct import CROP, PRESETS, Reconstruction, Report
from engine.jobs import eg3d_stages, result_stages, stages
from engine.jobs.base import Context, Result
from engine.jobs.views_stages import check_name, make_folder
from engine.portrait.align import align
from engine.portrait.detect import find_points
from engine.portrait.image import load_photo
from engine.surface.export import encode_png, write_whole

LABELS = {name: method.label for name, method in METHODS.items()} | {"auto": "Automatic"}


def read_methods(text: str) -> list[str]:
    """Names of methods in a list with commas; "all" for every one. Raises ParameterError."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if names == ["all"]:
        return list(LABELS)
    unknown = [name for name in names if name not in LABELS]
    if unknown or not names:
        wrong = f"There is no method {unknown[0][:40]}." if unknown else "No method was named."
        raise ParameterError(wrong, f"Methods are {', '.join(LABELS)}, or all.")
    return list(dict.fromkeys(names))


class BuiltInWays:
    """A photo, ready to be inverted with the built-in model."""

    def __init__(self, params: dict[str, Any], context: Context) -> None:
        self.params, self.context = params, context
        self.compute = stages.choose_compute(context)
        context.progress(0.0, "loading the model")
        self.model = load_default()
        context.progress(0.01, "finding the face")
        photo = load_photo(params["photo"])
        self.points, faces = find_points(
            photo.rgb, points=params["points"], face_index=params["face_index"], check=context.check
        )
        self.faces = len(faces)
        self.aligned = align(photo, self.points, size=CROP, widen=self.model.config["widen"])
        if params["preset"] not in PRESETS:
            raise ParameterError(
                f"The quality {params['preset']} is a way of its own: it has no methods to"
                " compare.",
                f"Choose one of {', '.join(PRESETS)}.",
            )
        steps = PRESETS[params["preset"]]
        if params["refine_steps"] >= 0:
            steps = replace(steps, tuning=params["refine_steps"])
        self.steps = steps

    def make(self, method: str, report: Report) -> Reconstruction:
        """The head by a method."""
        return invert(
            method, self.model, self.aligned, self.steps, self.compute, report,
            lambda field, camera: None, self.params["seed"], self.context.check,
        )  # fmt: skip

    def judge(self, made: Reconstruction) -> Quality:
        """How far to trust it."""
        return judge(
            measure(
                self.model, self.aligned, made, self.compute, self.points, self.faces,
                self.context.check,
            )
        )  # fmt: skip


def compare_methods(params: dict[str, Any], context: Context) -> Result:
    """The job `compare`."""
    name, names = check_name(params["name"]), read_methods(params["methods"])
    folder = make_folder(params["folder"]) if params["folder"] else None
    added = params["model"] not in ("", registry.BUILT_IN)
    ways = eg3d_stages.ModelWays(params, context) if added else BuiltInWays(params, context)
    context.preview(result_stages.thumbnail(ways.aligned.crop))
    rows, facts = [], []
    for index, method in enumerate(names):

        def report(fraction: float, step: str, at: int = index, method: str = method) -> None:
            context.progress(0.02 + 0.94 * (at + 0.9 * fraction) / len(names), f"{method}: {step}")

        try:
            made, seconds = compare.timed(
                lambda method=method, report=report: ways.make(method, report)
            )
        except Cancelled:
            raise
        except TriplaneError as error:
            facts.append({"method": method, "failed": error.sentence})
            continue
        report(1.0, "looking at the views")
        found = ways.judge(made)
        row = compare.entry(
            LABELS[method], made.field, made.camera, made.matte, ways.aligned, found, seconds,
            params["size"], context.check,
        )  # fmt: skip
        rows.append(row)
        facts.append(
            {
                "method": method,
                "seconds": round(seconds, 2),
                "psnr_db": round(row.psnr, 2),
                "quality": found.to_json(),
            }
        )
        context.item({"index": index, **facts[-1]}, row.source)
    if not rows:
        raise ParameterError(f"No method could make a head: {facts[0]['failed']}")
    context.progress(0.97, "composing the sheet")
    title = Path(params["photo"]).stem
    sheet = compare.draw(ways.aligned.crop, rows, title)
    meta = {"name": name, "photo": title, "methods": facts, "preset": params["preset"]}
    meta |= {"seed": params["seed"], "versions": result_stages.versions()}
    if folder is not None:
        write_whole({
            folder / f"{name}.png": encode_png(sheet),
            folder / f"{name}.json": json.dumps(meta, indent=1).encode(),
        })  # fmt: skip
        meta["path"] = str(folder / f"{name}.png")
    return context.result(meta, {"sheet": sheet})
