"""Ways to invert a photo, compared: the sheet, the job, the table on held-out heads."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from engine import jobs
from engine.cameras import orbit
from engine.errors import Cancelled, ParameterError, ReconstructionError
from engine.fields.base import Render
from engine.inversion import appearance, compare, methods, reconstruct
from engine.inversion.colours import Fitted
from engine.inversion.quality import Quality
from engine.inversion.reconstruct import encode_only
from engine.inversion.shape import Shape
from engine.jobs import compare_stages
from engine.jobs.base import Context
from engine.portrait.align import Aligned
from engine.portrait.matte import Matte
from engine.training import compare_page, compare_table, regions
from engine.training.metrics import brought, scale_of, ssim, ssim_map
from engine.training.truth import View


class Ball:
    """A field's stand-in: a ball of radius 0.5 in its box, red on its +x half, else green."""

    bounds = torch.tensor([[-1.0, -1, -1], [1, 1, 1]])

    def render(self, camera, check=lambda: None) -> Render:
        check()
        origin, directions = camera.rays()
        along = -(directions @ origin)
        miss = np.linalg.norm(origin + along[..., None] * directions, axis=-1)
        depth = along - np.sqrt(np.maximum(0.25 - miss**2, 0))
        point = origin + depth[..., None] * directions
        alpha = (miss < 0.5).astype(np.float32)
        image = np.zeros((*alpha.shape, 3), np.float32)
        image[..., 0], image[..., 1] = alpha * (point[..., 0] > 0), alpha * (point[..., 0] <= 0)
        along_z = depth * (directions @ camera.cam2world[:3, 2])
        return Render(*(torch.from_numpy(np.float32(x)) for x in (image, along_z, alpha)))


SIZE = 64
FRONT = orbit(0.0, 0.0, 4.0, 0.35, (0, 0, 0), SIZE, SIZE)


def entry(crop: np.ndarray, alpha: np.ndarray, name: str = "ball") -> compare.Entry:
    alpha = alpha.astype(np.float32)
    matte = Matte(alpha, alpha, np.zeros_like(alpha, int), 0 * alpha)
    aligned = Aligned(crop, np.ones(alpha.shape, bool), None, np.eye(3))
    quality = Quality(0.83, [])
    return compare.entry(name, Ball(), FRONT, matte, aligned, quality, 1.25, SIZE)


def ball_photo() -> tuple[np.ndarray, np.ndarray]:
    seen = Ball().render(FRONT)
    return (seen.image.numpy() * 255).astype(np.uint8), seen.alpha.numpy() > 0.5


def test_a_head_like_its_photo_has_no_error_and_another_has():
    crop, alpha = ball_photo()
    same = entry(crop, alpha)
    assert same.psnr > 60 and same.error.max() == 0
    other = entry(crop[:, ::-1].copy(), alpha)
    assert other.psnr < 10
    middle = other.error[SIZE // 2, SIZE // 2 - 5]
    assert middle.min() > 0 and other.error[2, 2].max() == 0


def test_views_are_from_the_sides_that_they_say():
    views = dict(zip(compare.YAWS, entry(*ball_photo()).views, strict=True))
    red = {yaw: int(((v[..., 0] > 200) & (v[..., 1] < 60)).sum()) for yaw, v in views.items()}
    assert red[60] > red[30] > red[-30] > red[-60]  # +x is the subject's left
    back = views[180]
    assert back[SIZE // 2, SIZE // 2 - 8, 0] > 200  # seen from behind, left is left


def test_the_error_is_not_drawn_where_clothes_hide_the_head():
    crop, alpha = ball_photo()
    alpha = alpha.astype(np.float32)
    matte = Matte(0 * alpha, alpha, np.zeros((SIZE, SIZE)), 0 * alpha)
    aligned = Aligned(crop[:, ::-1].copy(), np.ones(alpha.shape, bool), None, np.eye(3))
    row = compare.entry("ball", Ball(), FRONT, matte, aligned, Quality(0.5, []), 1.0, SIZE)
    assert row.error.max() == 0


def test_the_sheet_has_a_row_a_method_and_all_views():
    crop, alpha = ball_photo()
    one = compare.draw(crop, [entry(crop, alpha)])
    two = compare.draw(crop, [entry(crop, alpha), entry(crop, alpha, "another")], "name")
    assert two.shape[1] == one.shape[1] > 8 * SIZE
    assert two.shape[0] == one.shape[0] + SIZE + compare.GAP
    assert one.dtype == np.uint8 and (one == 255).any()


def test_methods_are_named_with_commas_or_all():
    assert compare_stages.read_methods("all") == [*methods.METHODS, "auto"]
    assert compare_stages.read_methods(" pti, encoder,pti ") == ["pti", "encoder"]
    for wrong in ("", "pti, stylus"):
        with pytest.raises(ParameterError, match="method"):
            compare_stages.read_methods(wrong)


@pytest.fixture
def by_encoder(monkeypatch):
    """All methods are the encoder, which is quick; but "pose" finds no head."""

    def quick(name, model, aligned, steps, compute, report, preview, seed, check):
        report(0.5, "encoding")
        check()
        if name == "pose":
            raise ReconstructionError("No head.", "Another photo.")
        return encode_only(model, aligned, compute)

    monkeypatch.setattr(compare_stages, "invert", quick)


@pytest.mark.usefixtures("restored_process")
class TestJob:
    def run(self, photo, context=None, **given):
        job = jobs.load("compare")
        params = job.checked({"photo": str(photo), "size": 64, "preset": "fast"} | given)
        return job.run(params, context or Context())

    def test_a_sheet_and_its_figures_are_written(self, by_encoder, photo, tmp_path):
        items = []
        context = Context(on_item=lambda facts, image: items.append(facts))
        folder = tmp_path / "sheets"
        result = self.run(photo, context, methods="encoder,pose", folder=str(folder))
        made, lost = result.meta["methods"]
        assert made["method"] == "encoder" and made["seconds"] > 0
        assert 5 < made["psnr_db"] < 40 and 0 <= made["quality"]["score"] <= 1
        assert lost == {"method": "pose", "failed": "No head."}
        assert [item["method"] for item in items] == ["encoder"]
        written = np.asarray(Image.open(folder / "compare.png"))
        assert np.array_equal(written, result.arrays["sheet"])
        assert json.loads((folder / "compare.json").read_text())["methods"] == [made, lost]

    def test_where_every_method_fails_the_first_sentence_is_told(self, by_encoder, photo):
        with pytest.raises(ParameterError, match="No head"):
            self.run(photo, methods="pose")

    def test_it_can_be_cancelled(self, by_encoder, photo):
        steps = []
        context = Context(
            on_progress=lambda fraction, step, left: steps.append(step),
            is_cancelled=lambda: any("encoding" in step for step in steps),
        )
        with pytest.raises(Cancelled):
            self.run(photo, context, methods="encoder,pti")


def row(method: str, seed: int, psnr: float, yaw: int = 0) -> dict:
    parts = {"psnr": psnr, "ssim": 0.5, "features": 0.4, "depth": 3.0}
    view = {"yaw": 30, "all": parts | {"iou": 0.9}, "hidden": parts, "visible": parts}
    lone = {"yaw": 180, "all": parts | {"iou": 0.7}, "hidden": parts | {"psnr": psnr + 2}}
    return {"seed": seed, "yaw": yaw, "method": method, "seconds": 2.0, "views": [view, lone]}


def test_the_table_is_over_portraits_that_all_methods_have_done():
    rows = [row("encoder", 1, 20.0), row("pti", 1, 22.0), row("encoder", 2, 10.0)]
    table = compare_table.tables(rows)
    found = table["encoder"]["0"]
    assert found["heads"] == 1 and table["pti"]["0"]["hidden"]["psnr"]["mean"] == 23.0
    assert found["hidden"]["psnr"]["mean"] == 21.0 and found["visible"]["psnr"]["mean"] == 20.0
    assert found["all"]["iou"]["mean"] == pytest.approx(0.8)


def test_gains_are_over_the_same_portraits():
    rows = [row("pti", 1, 20.0), row("warpgan", 1, 21.0), row("pti", 2, 24.0)]
    rows += [row("warpgan", 2, 24.5), row("warpgan", 3, 9.0)]
    found = compare_table.hidden_gain(rows, "warpgan")
    assert found == {"0": {"pti": {"gain": 0.75, "error": 0.25, "better": 1.0}}}
    assert "| 0 | +0.75 ± 0.25 (100%) |" in compare_page.gain_table(found)


def test_every_head_has_its_turn_before_any_has_a_second():
    first = compare_table.HELD_OUT
    found = compare_table.portraits(first, 3, [0, 20, 45])
    assert found[:3] == [(first, 0), (first + 1, 20), (first + 2, 45)]
    assert len(set(found)) == 9 and len({seed for seed, _ in found[3:6]}) == 3


def test_what_methods_share_is_computed_once_a_portrait(monkeypatch):
    calls = []
    field = Ball()
    fitted = Fitted(field, FRONT, None, None, None, None, None, None, None, None)

    def fit(model, aligned, silhouette):
        calls.append(("fit", silhouette))
        return fitted

    def refine(generator, ws, seen, steps):
        calls.append(("refine", steps))
        return ws + steps

    for module in (reconstruct, methods):
        monkeypatch.setattr(module, "fit_head", fit)
    monkeypatch.setattr(appearance, "refine_latent", refine)
    once = compare_table.Once()
    one, two = object(), object()
    heads = [methods.fit_head(None, photo, 40) for photo in (one, one, two)]
    assert len(calls) == 2 and heads[0].field is not heads[1].field
    ws, other = torch.zeros(1, 2), torch.ones(1, 2)
    seen = appearance.Seen(torch.zeros(4, 3), torch.zeros(4, 3), torch.ones(4), None)
    assert torch.equal(appearance.refine_latent(None, ws, seen, 0), ws)
    for start in (ws, ws.clone(), other):
        assert torch.equal(appearance.refine_latent(None, start, seen, 3), start + 3)
    assert calls[2:] == [("refine", 0), ("refine", 3), ("refine", 3)]
    assert torch.equal(appearance.refine_latent(None, other, seen, 5), other + 5)
    assert once.spared >= 0


def test_the_page_shows_the_best_in_bold(tmp_path):
    rows = [row("encoder", 1, 20.0), row("pti", 1, 22.0)]
    out = {"made_by": {"weights": "a" * 64, "code": "b" * 64, "preset": "balanced"}}
    text = compare_page.pages(out | {"table": compare_table.tables(rows)})
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if "|" in line}
    assert "**23.00**" in lines["PTI"] and "| 21.00" in lines["Encoder"]
    assert "from 0 degrees, 1 portrait:" in text


def test_similarity_by_pixel_has_the_mean_that_it_had():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 40, 30, 3))
    assert ssim_map(a, b).shape == a.shape
    assert ssim(a, b) == pytest.approx(ssim_map(a, b)[5:-5, 5:-5].mean())
    assert ssim(a, a) == pytest.approx(1)


def view(yaw: float, size: int = 128) -> View:
    camera = orbit(np.radians(yaw), 0.0, 4.0, 0.35, (0, 0, 0), size, size)
    seen = Ball().render(camera)
    alpha, depth = seen.alpha.numpy(), seen.depth.numpy()
    head, none = alpha > 0.5, np.zeros(alpha.shape, bool)
    return View(camera, seen.image.numpy(), alpha, depth, head, none, none, yaw)


class TestRegions:
    def portrait(self):
        camera = orbit(0.0, 0.0, 4.0, 0.35, (0, 0, 0), 512, 512)
        seen = Ball().render(camera)
        depth = np.where(seen.alpha.numpy() > 0.5, seen.depth.numpy(), 0)
        return camera, regions.Drawn(np.zeros((512, 512, 4), np.uint8), depth > 0, depth)

    def test_true_cameras_are_brought_to_a_head_of_another_size_and_place(self):
        """They see its landmarks where they saw the true head's."""
        marks = np.random.default_rng(0).normal(size=(84, 3)) * 0.08
        space = SimpleNamespace(
            vertices=lambda identity, expression: None, landmarks=lambda v: torch.from_numpy(marks)
        )
        truth = SimpleNamespace(landmarks=1.25 * marks[:, [2, 1, 0]] * [1, 1, -1] + [0.02, 0.1, 0])
        shape = Shape(*[None] * 6)
        there = regions.to_true(space, shape, truth)
        assert scale_of(there) == pytest.approx(1.25)
        camera = orbit(0.4, 0.1, 2.0, 0.3, (0, 0, 0), 128, 128)
        seen, depth = brought(camera, np.linalg.inv(there)).project(marks)
        true, far = camera.project(truth.landmarks)
        assert np.allclose(seen, true, atol=1e-6) and np.allclose(1.25 * depth, far)

    def test_the_front_is_visible_the_back_hidden_the_side_half(self):
        shares = {}
        for yaw in (0, 90, 180):
            true = view(yaw)
            seen = regions.seen_by(true, *self.portrait())
            assert not (seen & ~true.head).any()
            shares[yaw] = seen.sum() / true.head.sum()
        assert shares[0] > 0.98 and shares[180] < 0.05 and 0.35 < shares[90] < 0.65
        side = regions.seen_by(view(90), *self.portrait())
        assert side[:, :64].sum() > 20 * side[:, 64:].sum()  # the face looks to the left there

    def test_an_error_counts_in_its_own_region(self):
        from engine.checkpoints.default import load_default

        net, true = load_default().perception, view(0)
        left = np.broadcast_to(np.arange(128) < 64, (128, 128))
        picture = true.rgb * true.alpha[..., None] + 0.5 * (1 - true.alpha[..., None])
        wrong = np.where((left & true.head)[..., None], 1 - picture, picture)
        found = regions.compare_regions(net, true, left, wrong, true.alpha, true.depth + 0.002)
        assert found["visible"]["psnr"] < 5 and found["hidden"]["psnr"] > 50
        assert found["hidden"]["ssim"] > 0.8 > 0.5 > found["visible"]["ssim"]
        assert found["visible"]["features"] > 2 * found["hidden"]["features"]
        assert found["all"]["depth"] == pytest.approx(2.0, abs=0.01)
        assert found["all"]["iou"] == 1
        few = replace(true, head=true.head & (np.indices((128, 128)).sum(0) == 128))
        assert "visible" not in regions.compare_regions(
            net, few, left, picture, true.alpha, true.depth
        )
