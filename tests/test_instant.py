"""The small LRM for heads and the preset *instant*: lifted views, the network, a step of training,
a held-out synthetic head, the way through the worker."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine import cameras, device, jobs
from engine.checkpoints.default import load_default
from engine.checkpoints.instant import PATH, load_instant
from engine.client import EngineClient
from engine.errors import ParameterError, WeightsError
from engine.fields.head import HeadField
from engine.fields.io import field_to_bytes, load_field
from engine.inversion.instant import hair_moved, reconstruct_instant
from engine.inversion.outline import to_outline
from engine.inversion.pose import to_camera
from engine.inversion.reconstruct import CROP, Reconstruction
from engine.inversion.shape import RESIDUAL, Canonical, Shape, bake
from engine.jobs.base import Context
from engine.networks.planes import PlaneDecoder
from engine.portrait.align import Aligned, align
from engine.portrait.image import Photo
from engine.process import EngineSettings
from engine.surface.metrics import iou, psnr
from engine.systems.lrm.head import HeadLrm, HeadLrmConfig, likely
from engine.systems.lrm.lift import SIZE, VIEWS, lift, mirrored, surface
from engine.training import lrm_data, train_lrm
from engine.training.metrics import brought, similarity

TINY = HeadLrmConfig(width=32, layers=1, heads=2, features=4, decoder_width=16)
MEGABYTES = 15

pytestmark = pytest.mark.usefixtures("restored_process")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Two threads on small tensors are slower than one where other programs compute too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def held_out() -> dict[str, np.ndarray]:
    """A synthetic head that was never trained with: its portrait at 256 pixels, and three views."""
    path = Path(__file__).parent / "data" / "instant_head.npz"
    with np.load(path) as stored:
        found = dict(stored)
    for name in ("photo", "view0", "view1", "view2"):
        found[name] = np.asarray(Image.open(io.BytesIO(found[name].tobytes())).convert("RGB"))
    for name in ("head", "beyond"):  # beyond: the body below the bust's cut
        found[name] = np.unpackbits(found[name]).reshape(3, 128, 128).astype(bool)
    found["shown"] = np.unpackbits(found["shown"]).reshape(256, 256).astype(bool)
    return found


def aligned(alpha: np.ndarray | None = None) -> Aligned:
    photo = Photo(held_out()["photo"], alpha, "")
    return align(photo, held_out()["points"], CROP, load_default().config["widen"])


@cache
def made() -> Reconstruction:
    compute = device.choose("cpu", threads=1)
    return reconstruct_instant(load_default(), load_instant(), aligned(), compute)


def mean_shape(yaw: float = 0.0) -> Shape:
    """The mean head under its first style of hair, in the middle of the picture."""
    space, r = load_default().space, RESIDUAL
    pose = torch.tensor([yaw, 0.0, 0.0, 0.5, 0.5, -0.9])
    hair = torch.eye(space.styles)[0]
    zeros = torch.zeros(len(space.identity)), torch.zeros(len(space.expression))
    return Shape(*zeros, hair, torch.zeros(()), torch.zeros(1, r, r, r), pose)


def lifted(yaw: float, picture: torch.Tensor):
    space, shape = load_default().space, mean_shape(yaw)
    forward = Canonical(space).forward_lattice(shape.identity, shape.expression)
    of = surface(space, space.hair(shape.hair))
    classes = torch.ones(1, 3, SIZE, SIZE)
    return lift([of], [forward], shape.pose[None], picture, classes, space.bounds)


def random_batch(count: int = 2) -> lrm_data.Batch:
    g = torch.Generator().manual_seed(3)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(count, *shape, generator=g)

    distance = 0.02 * rand(600, 4) - 0.01
    distance[..., 2] = 0.01
    distance[:, ::7, 3] = torch.nan
    return lrm_data.Batch(
        views=rand(5, 9, SIZE, SIZE),
        place=0.2 * rand(5, SIZE, SIZE, 3) - 0.1,
        picture=rand(6, SIZE, SIZE),
        point=0.2 * rand(4, 128, 128, 3) - 0.1,
        colour=0.5 + 0.2 * rand(4, 128, 128, 3),
        space=0.2 * rand(600, 3) - 0.1,
        distance=distance,
    )


def test_views_look_at_the_surface_from_five_sides():
    """Each texel's place lies on the head, in the texel's own column and row."""
    space = load_default().space
    of = surface(space, space.hair(mean_shape().hair))
    x, y, z = of.place.unbind(-1)
    at = (torch.arange(SIZE) + 0.5) / SIZE * 0.4 - 0.2
    assert torch.allclose(x[0], at.expand(SIZE, SIZE)) and torch.allclose(
        y[2].T, at.expand_as(y[2])
    )
    solid = of.solid
    assert (solid.flatten(1).float().mean(1) > 0.1).all()
    assert z[0][solid[0]].max() > 0.09 and z[1][solid[1]].min() < -0.07
    assert (x[2][solid[2]].mean() > 0.03) and (x[3][solid[3]].mean() < -0.03)
    norm = of.normal[solid].norm(dim=-1)
    assert torch.allclose(norm, torch.ones_like(norm), atol=1e-4)


def test_a_picture_is_laid_where_the_camera_sees():
    """A picture red on its left half: from the front, red lies at x < 0 of the front view; the
    back is not seen, nor the right side when the camera looks at the left one."""
    picture = torch.zeros(1, 3, SIZE, SIZE)
    picture[:, 0, :, : SIZE // 2] = 1
    front = lifted(0.0, picture)
    seen = front.seen[0]
    assert seen[0].max() > 0.95 and seen[1].max() < 0.05
    red = front.colour[0, 0, 0]
    assert red[64, 40] > 0.9 and red[64, 88] < 0.1
    left = lifted(1.3, picture)
    assert left.seen[0, 2].mean() > 5 * left.seen[0, 3].mean()


def test_nothing_behind_another_part_is_seen():
    """A camera from the left sees no point of the far cheek, though it faces forwards."""
    seen = lifted(1.2, torch.zeros(1, 3, SIZE, SIZE)).seen[0, 0]
    far, near = seen[:, : SIZE // 2 - 8].mean(), seen[:, SIZE // 2 + 8 :].mean()
    assert near > 3 * far


def test_mirroring_twice_is_nothing():
    x = torch.rand(2, 5, 3, 8, 8)
    assert torch.equal(mirrored(mirrored(x)), x) and not torch.equal(mirrored(x), x)


def test_unseen_colours_start_from_the_other_half_and_the_mean():
    """Half of the face red: so is the other half likely; hair that is not seen is as what is."""
    views = torch.zeros(1, 5, 9, 16, 16)
    views[:, 0, 0, :, :8], views[:, 0, 6, :, :8], views[:, :, 4] = 0.9, 1.0, 1.0
    colour = likely(views).sigmoid()
    assert colour[0, 0, 0, 4, 12] > 0.7 > 0.3 > colour[0, 0, 1, 4, 12]
    assert colour[0, 1, 0, 4, 4] > 0.7  # the back of a bald head, too


def test_shapes_of_maps_and_planes():
    net = HeadLrm(TINY).eval()
    batch = random_batch()
    with torch.no_grad():
        maps = net.maps(batch.picture, batch.views)
        assert maps.shape == (2, len(VIEWS), 1 + 3 + 4, SIZE, SIZE)
        fine = torch.rand(2, 5, 3, 2 * SIZE, 2 * SIZE)
        planes = net.planes(maps, fine, fine[:, :, 0], fine[:, :, 1])
        assert planes.shape == (2, 5, 8, 2 * SIZE, 2 * SIZE)
        colour, residual = net.decode(planes, batch.space)
    assert colour.shape == (2, 600, 3) and residual.shape == (2, 600)


def test_an_untrained_network_shows_the_picture_where_it_is_seen():
    torch.manual_seed(0)
    net = HeadLrm(TINY).eval()
    views = torch.zeros(1, 5, 9, SIZE, SIZE)
    views[:, 0, 0], views[:, 0, 1:3] = 0.8, 0.3
    views[:, 0, 6:8] = 1.0  # seen, and looked at from the front alone
    with torch.no_grad():
        planes = net(torch.zeros(1, 6, SIZE, SIZE), views)
        colour = net.decode(planes, torch.tensor([[[0.0, 0.0, 0.1]]]))[0][0, 0]
    assert torch.allclose(colour, torch.tensor([0.8, 0.3, 0.3]), atol=0.12)


def losses_of(steps: int) -> list[float]:
    """Of the first steps of training on one picture."""
    batch, found = random_batch(1), []
    torch.manual_seed(1)
    net = HeadLrm(TINY)
    optimiser = torch.optim.Adam(train_lrm._groups(net), 4e-3)
    for _ in range(steps):
        torch.manual_seed(2)
        values = train_lrm.losses(net, batch, np.random.default_rng(0))
        loss = sum(train_lrm.WEIGHTS[k] * v for k, v in values.items())
        found.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return found


def test_training_steps_lower_the_loss_and_repeat():
    found = losses_of(5)
    assert found[-1] < 0.97 * found[0]
    assert losses_of(2) == pytest.approx(found[:2], rel=1e-5)


def test_the_mirror_image_of_a_row_is_consistent():
    """Places and the views' own layout are mirrored alike."""
    space = load_default().space
    place = surface(space, space.hair(mean_shape().hair)).place
    batch = random_batch(1)
    row = {key: value[0] for key, value in vars(batch).items()} | {"place": place}
    turned = lrm_data.mirror_image(row)
    at = (torch.arange(SIZE) + 0.5) / SIZE * 0.4 - 0.2
    assert torch.allclose(turned["place"][0, ..., 0], at.expand(SIZE, SIZE), atol=1e-6)
    assert torch.allclose(turned["place"][2, ..., 0], -place[3, ..., 0])
    again = lrm_data.mirror_image(turned)
    assert all(torch.equal(again[key], row[key]) for key in ("views", "picture", "space"))


def test_the_weights_that_ship_fit_and_are_small():
    assert PATH.stat().st_size < MEGABYTES * 1e6
    net = load_instant()
    assert not any(p.requires_grad for p in net.parameters()) and not net.training
    assert net.decoder.net[0].weight.shape[1] == 4 + net.config.features


def test_damaged_weights_say_so(tmp_path):
    half = tmp_path / "half.safetensors"
    half.write_bytes(PATH.read_bytes()[:100_000])
    other = tmp_path / "other.safetensors"
    train_lrm.save_file({"a": torch.zeros(1)}, other, {"model": json.dumps(TINY.to_json())})
    for path in (half, other, tmp_path / "none.safetensors"):
        with pytest.raises(WeightsError):
            load_instant(path)


def test_a_held_out_head_from_the_front_and_aside():
    """PSNR and outline in two frontal views and one from the side, after the similarity of the
    landmarks; a grey head would have 15 dB here."""
    truth, model, head = held_out(), load_default(), made()
    marks = head.shape.landmarks(model.space).numpy().astype(float)
    back = np.linalg.inv(similarity(marks, truth["landmarks"].astype(float)))
    found = []
    for k in range(3):
        camera = cameras.from_eg3d(truth["camera"][k], 128, 128)
        seen = head.field.render(brought(camera, back))
        inside = truth["head"][k]
        alpha = seen.alpha.numpy()
        image = (seen.image + (1 - seen.alpha[..., None]) * 0.5).numpy()
        picture = truth[f"view{k}"] / 255.0
        mine = (alpha > 0.5) & ~truth["beyond"][k]
        found.append((psnr(image, picture, inside), iou(mine, inside)))
    (front, front_iou), (near, _), (aside, aside_iou) = found
    assert min(front, near) > 23.5 and aside > 22.0, found
    assert front_iou > 0.9 and aside_iou > 0.85, found


def test_a_field_of_five_planes_is_saved_and_read_back():
    field = made().field
    again = load_field(field_to_bytes(field))
    assert again.planes.shape == field.planes.shape and len(again.metadata()["planes"]) == 5
    points = 0.09 * torch.nn.functional.normalize(torch.rand(200, 3) - 0.5, dim=1)
    assert torch.allclose(again.color(points), field.color(points), atol=0.02)


def test_hair_is_moved_within_its_bound():
    model = load_default()
    moved = hair_moved(load_instant(), model.space, made().shape, made().field.planes[None])
    assert moved.isfinite().all() and float(moved.abs().max()) <= float(
        model.space.residual_bound.max()
    )


def outline_of(shape: Shape, moved: torch.Tensor) -> np.ndarray:
    """Where a head is in a picture of SIZE pixels a side."""
    space = load_default().space
    distance, warp = bake(space, shape, moved, 96)
    planes, decoder = torch.zeros(4, 4, 4, 4), PlaneDecoder(4, 4).requires_grad_(False)
    field = HeadField(distance, warp, planes, decoder, space.bounds)
    return field.render(to_camera(shape.pose, SIZE)).alpha.numpy() > 0.5


def test_hair_follows_the_pictures_outline():
    """A head whose hair is a centimetre fuller in the picture; where the picture shows skin, or
    nothing is known, hair stays."""
    space, shape = load_default().space, mean_shape(0.2)
    shape.hair = torch.eye(space.styles)[2]
    still = torch.zeros(1, 40, 40, 40)
    fuller = replace(shape, offset=torch.tensor(0.01))
    wanted, before = outline_of(fuller, still), outline_of(shape, still)
    alpha = torch.from_numpy(wanted).float()
    hair, unknown = torch.ones_like(alpha), torch.zeros_like(alpha)
    added = to_outline(space, shape, Canonical(space), still, alpha, hair, unknown)
    after = outline_of(shape, added)
    assert 1 - iou(after, wanted) < 0.6 * (1 - iou(before, wanted))
    for stays in ((0 * hair, unknown), (hair, 1 + unknown)):
        nothing = to_outline(space, shape, Canonical(space), still, alpha, *stays)
        assert float(nothing.amin()) > -0.3 * float(-added.amin())


def test_equal_pictures_make_equal_heads():
    compute = device.choose("cpu", threads=1)
    again = reconstruct_instant(load_default(), load_instant(), aligned(), compute)
    assert torch.equal(again.field.planes, made().field.planes)
    assert torch.equal(again.field.distance, made().field.distance)


@pytest.mark.slow
def test_through_the_worker_to_a_mesh(root, photo, tmp_path):
    """The job in a process of its own: a field of five planes that can be read back, a closed
    textured mesh."""
    client = EngineClient(EngineSettings(sys.executable, str(root), str(tmp_path / "log.txt")))
    params = {"photo": str(photo), "preset": "instant", "faces": 3000, "texture_size": 256}
    events: list[dict] = []
    try:
        result = client.run_blocking("reconstruct", params, on_event=events.append)
    finally:
        client.close()
    meta, arrays = result["meta"], result["arrays"]
    assert meta["preset"] == "instant"
    assert "painting the head" in {event.get("step") for event in events}
    assert meta["figures"]["mesh"]["components"] == 1
    assert meta["figures"]["photo_psnr_common_db"] > 20
    field = load_field(arrays["field"].tobytes())
    assert field.planes.shape[0] == 5 and field.metadata()["planes"][2] == "z y left"
    assert arrays["texture"].shape == (256, 256, 3)


def test_a_method_and_instant_exclude_each_other(photo):
    job = jobs.load("reconstruct")
    params = job.checked({"photo": str(photo), "preset": "instant", "method": "pti"})
    with pytest.raises(ParameterError, match="instant"):
        job.run(params, Context())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["transparent", "wall", "clutter"])
def test_a_head_as_an_object(kind, tmp_path):
    """A synthetic head, cut out in the three ways of the job `object`, through our own model."""
    rgb, shown = held_out()["photo"], held_out()["shown"]
    params = {"photo": str(tmp_path / "head.png"), "model": "heads", "faces": 3000}
    picture = rgb
    if kind == "transparent":
        picture = np.dstack([rgb, shown * np.uint8(255)])
    elif kind == "wall":
        picture = np.where(shown[..., None], rgb, np.uint8(205))
    else:
        Image.fromarray(shown * np.uint8(255)).save(tmp_path / "mask.png")
        params["mask"] = str(tmp_path / "mask.png")
    Image.fromarray(picture).save(params["photo"])
    job = jobs.load("object")
    result = job.run(job.checked(params | {"texture_size": 256}), Context())
    meta = result.meta
    assert meta["model"] == "heads" and meta["figures"]["mesh"]["clean"]
    assert meta["figures"]["silhouette_iou"] > 0.75
