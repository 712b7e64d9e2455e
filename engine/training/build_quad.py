"""Makes the quad template: engine/weights/quad.safetensors, from the head data pack and the shipped
head space.

    python -m engine.training.build_quad --out quad.safetensors

Needs about four minutes of one core and 3 GB. Heads of seeds 0 .. --heads give the regression of
the template's vertices on the head space's coefficients, the next 100 the reported error.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from scipy import sparse
from scipy.spatial import cKDTree

from engine.checkpoints.default import load_default
from engine.headspace.space import HeadSpace
from engine.surface.subdivide import subdivide
from engine.training import build_quad_fit as fitting
from engine.training import build_quad_uv
from engine.training.build_headspace import Binding, coefficients, sample_pair, vertex_weight
from engine.training.build_quad_layout import LID, LIP, PARTS, half
from engine.training.build_quad_mesh import Curve, Surface, neighbours, normals
from engine.training.build_quad_surface import HalfSkin
from engine.training.heads.build import METRES
from engine.training.heads.pack import Pack
from engine.training.heads.parts import split_quads

HELD_OUT = 100
SIDES = 0.008  # metres on both sides of the middle over which a half expression fades out
LEFT, RIGHT = "Left", "Right"
# ARKit's name -> the pack's expression unit, how much of it, and whether it has two sides: 'own'
# (units of their own), 'split' (one unit cut in the middle), '' (one for both).
EXPRESSIONS = {
    "browDown": ("eyebrows-left-down", 1.0, "own"),
    "browInnerUp": ("eyebrows-left-inner-up", 1.0, ""),
    "browOuterUp": ("eyebrows-left-extern-up", 1.0, "own"),
    "eyeBlink": ("eye-left-closure", 1.0, "own"),
    "eyeSquint": ("eye-left-slit", 0.9, "own"),
    "eyeWide": ("eye-left-opened-up", 1.0, "own"),
    "jawOpen": ("mouth-open", 0.65, ""),
    "mouthDimple": ("mouth-compression", 0.8, "split"),
    "mouthFrown": ("mouth-depression", 0.9, "split"),
    "mouthFunnel": ("mouth-protusion", 0.75, ""),
    "mouthLowerDown": ("mouth-depression-retraction", 0.7, "split"),
    "mouthPucker": ("mouth-pursing", 0.75, ""),
    "mouthShrugLower": ("mouth-eversion", 0.9, ""),
    "mouthSmile": ("mouth-corner-puller", 0.9, "split"),
    "mouthStretch": ("mouth-retraction", 0.9, "split"),
    "mouthUpperUp": ("mouth-elevation", 0.9, "split"),
    "noseSneer": ("nose-left-elevation", 1.0, "own"),
}


class Template:
    """The whole template on the mean head.

    v [V, 3]; quads [F, 4], the left half's first; part [F]; mirror [V]; carry [V, P]: sparse, takes
    displacements of the pack's vertices to the template's.
    """

    def __init__(self, pack: Pack, mean: np.ndarray) -> None:
        skin, layout = HalfSkin(pack, mean), half()
        self.skin, self.layout = skin, layout
        eye = skin.v[pack.group_vertices["eye_l"]]
        centre = pack.joint(skin.v, "eye_l")
        self.eye = centre, float(np.median(np.linalg.norm(eye - centre, axis=1)))
        left = fitting.fit(skin, layout, self.eye)
        middle = np.zeros(len(left), bool)
        middle[[i for i, k in enumerate(layout.nodes) if k[0] == "box" and k[1] == 0]] = True
        middle[[ring[end] for ring in layout.rings["mouth"] for end in (0, -1)]] = True
        middle[[i for i, k in enumerate(layout.nodes) if k[:3] == ("mouth", "cap", 0)]] = True
        left[middle, 0] = 0
        count = len(left)
        mirror = np.arange(count)
        mirror[~middle] = count + np.arange((~middle).sum())
        self.v = np.concatenate([left, left[~middle] * [-1, 1, 1]])
        self.quads = np.concatenate([layout.quads, mirror[layout.quads][:, ::-1]])
        self.part = np.concatenate([layout.part, layout.part])
        self.mirror = np.concatenate([mirror, np.flatnonzero(~middle)])
        self.middle, self.left_count = middle, count
        self.carry = self._carry(pack)

    def _carry(self, pack: Pack) -> sparse.csr_matrix:
        v, layout, rings = self.v[: self.left_count], self.layout, self.layout.rings
        packs = len(self.skin.v)
        n = normals(self.v, self.quads)[: self.left_count]
        inner = np.isin(self.layout.part, [PARTS.index(p) for p in ("lid", "socket", "mouth")])
        outer = np.unique(layout.quads[~inner])
        rows = sparse.lil_matrix((self.left_count, packs))
        surface = Surface(self.skin.v, self.skin.triangles)
        triangle, w = surface.exact(v[outer], n[outer])
        for i, t, weight in zip(outer, self.skin.triangles[triangle], w, strict=True):
            rows[i, t] = weight
        # Lids' inner sides go with the lids, the socket with the eyeball.
        ball = pack.faces[pack.face_group == pack.group_names.index("eye_l")]
        globe = Surface(self.skin.v, split_quads(ball), 0.0003)
        socket = np.unique(layout.quads[np.isin(layout.part, [PARTS.index("socket")])])
        triangle, w = globe.exact(v[socket], -n[socket])
        for i, t, weight in zip(socket, globe.triangles[triangle], w, strict=True):
            rows[i, t] = weight
        for k, share in ((LID + 1, 0.0), (LID + 2, 0.5)):
            for edge, node in zip(rings["eye"][LID], rings["eye"][k], strict=True):
                rows[node] = share * rows[node] + (1 - share) * rows[edge]
        # The bag goes with the lips, deeper down more and more as a whole.
        slit = rings["mouth"][LIP]
        mean = sparse.lil_matrix(
            sum((rows[i] for i in slit), sparse.lil_matrix((1, packs))) / len(slit)
        )
        last = len(rings["mouth"]) - 1
        for k in range(LIP + 1, last + 1):
            share = 0.85 * (k - LIP - 1) / (last - LIP - 1)
            for edge, node in zip(slit, rings["mouth"][k], strict=True):
                rows[node] = share * mean + (1 - share) * rows[edge]
        rows = rows.tocsr()
        cap = np.array([i for i, k in enumerate(layout.nodes) if k[:2] == ("mouth", "cap")])
        ring = neighbours(self.left_count, layout.quads)
        degree = sparse.diags(1 / np.asarray(ring.sum(1)).ravel())
        inside = np.zeros(self.left_count)
        inside[cap] = 1
        for _ in range(60):
            rows = sparse.diags(1 - inside) @ rows + sparse.diags(inside) @ (degree @ ring @ rows)
        other = cKDTree(pack.rest).query(pack.rest * [-1, 1, 1])[1]
        right = rows[:, other][np.flatnonzero(~self.middle)]
        # What is in the middle takes the mean of both sides.
        both = (
            sparse.diags(1 - 0.5 * self.middle) @ rows
            + sparse.diags(0.5 * self.middle) @ rows[:, other]
        )
        return sparse.vstack([both, right]).tocsr()

    def detail(self) -> list[np.ndarray]:
        """How far from its plain subdivision the mean head's skin is, level by level [V', 3]."""
        surface_left = self.skin.triangles
        mirrored = cKDTree(self.skin.v).query(self.skin.v * [-1, 1, 1])[1]
        whole = np.concatenate([surface_left, mirrored[surface_left][:, ::-1]])
        surface = Surface(self.skin.v, whole, 0.0004)
        lids, _ = fitting.lids_curve(self.skin, 8)
        lips = Curve(self.skin.v[self.skin.lips])
        brim = Curve(self.skin.brim)
        rings = self.layout.rings
        flags = np.zeros((len(self.v), 6), bool)  # lids, lips, rim, middle, kept inside, free
        both = lambda nodes: np.concatenate([nodes, self.mirror[nodes]])  # noqa: E731
        flags[both(np.array(rings["eye"][LID])), 0] = True
        flags[both(np.array(rings["mouth"][LIP])), 1] = True
        rim = [i for i, k in enumerate(self.layout.nodes) if k[0] == "box" and k[2] == 0]
        flags[both(np.array(rim)), 2] = True
        flags[: self.left_count, 3] = self.middle
        inner = np.isin(self.part, [PARTS.index(p) for p in ("lid", "socket", "mouth")])
        kept = np.setdiff1d(np.unique(self.quads[inner]), np.flatnonzero(flags[:, :2].any(1)))
        flags[kept, 4] = True
        quads, part, plain, v, out = self.quads, self.part, self.v, self.v, []
        for _ in range(2):
            step = subdivide(quads, len(plain))
            plain, v = step.matrix @ plain, step.matrix @ v
            edges = flags[step.edges[:, 0]] & flags[step.edges[:, 1]]
            faces = flags[quads][:, :, 4].any(1)
            edges[:, 4] = flags[step.edges][:, :, 4].any(1)
            new = np.zeros((len(quads), 6), bool)
            new[:, 4] = faces
            flags, quads = np.concatenate([flags, edges, new]), step.quads
            part = np.repeat(part, 4)
            ears = np.unique(quads[part == PARTS.index("ear")])
            v = self._settle(v, quads, flags, ears, surface, (lids, lips, brim))
            out.append(v - plain)
        return out

    @staticmethod
    def _settle(v, quads, flags, ears, surface, curves) -> np.ndarray:
        ring = neighbours(len(v), quads)
        degree = np.maximum(np.asarray(ring.sum(1)).ravel(), 1)[:, None]
        free = np.flatnonzero(~flags[:, [0, 1, 2, 4]].any(1))
        start, v = v, v.copy()
        for name, curve in enumerate(curves):
            nodes = np.flatnonzero(flags[:, name])
            sign = np.where(v[nodes, :1] < 0, -1.0, 1.0) * [1, 0, 0] + [0, 1, 1]
            v[nodes] = curve.at(curve.find(v[nodes] * sign)) * sign
        for _ in range(12):
            mean = ring @ v / degree
            n = normals(v, quads)
            step = 0.35 * (mean - v)[free]
            target = v[free] + step - (step * n[free]).sum(1, keepdims=True) * n[free]
            v[free] = surface.rounded(target, n[free])
            v[flags[:, 3], 0] = 0
        # An ear's deepest folds are finer than the quads: evened out rather than followed.
        for _ in range(3):
            v[ears] += 0.4 * (ring @ v / degree - v)[ears]
        # What lies inside goes along with its border, fading.
        moved = v - start
        inside = flags[:, 4]
        for _ in range(8):
            moved[inside] = 0.9 * (ring @ moved / degree)[inside]
        return start + moved


def follows(template: Template) -> np.ndarray:
    """How far each vertex may follow a head's own surface [V] in 0..1: not inside, not at lids and
    lips, where a field has no opening, not in the ears, where it has no folds."""
    t, rings = template, template.layout.rings
    out = np.ones(t.left_count)
    for name, edge in (("eye", LID), ("mouth", LIP)):
        for k, ring in enumerate(rings[name]):
            out[ring] = np.minimum(out[ring], np.clip((edge - k) / 2, 0, 1))
    for k, ring in enumerate(rings["ear"]):
        out[ring] = min(1.0, 0.5) if k == 0 else 0.0
    out[[i for i, k in enumerate(t.layout.nodes) if k[1] == "cap"]] = 0
    rim = [i for i, k in enumerate(t.layout.nodes) if k[0] == "box" and k[2] == 0]
    out[rim] = 0.5
    return np.concatenate([out, out[~t.middle]])


def shape_keys(pack: Pack, template: Template) -> tuple[list[str], np.ndarray]:
    """Names of ARKit's, and displacements [K, V, 3] in metres on the mean head."""
    v, mirror = template.v, template.mirror
    side = np.clip(0.5 + v[:, 0] / (2 * SIDES), 0, 1)
    side = (side * side * (3 - 2 * side))[:, None]
    names, moves = [], []
    for name, (unit, amount, kind) in EXPRESSIONS.items():
        delta = np.zeros((len(pack.rest), 3), np.float32)
        for ethnicity in ("african", "asian", "caucasian"):
            pack.add_target(delta, f"expression/{ethnicity}/{unit}", amount / 3)
        move = template.carry @ (delta * METRES)
        other = move[mirror] * [-1, 1, 1]
        if kind == "split":
            both = 0.5 * (move + other)
            names += [name + LEFT, name + RIGHT]
            moves += [both * side, both * (1 - side)]
        elif kind == "own":
            if name == "eyeBlink":
                move = _shut(template, move)
                other = move[mirror] * [-1, 1, 1]
            names += [name + LEFT, name + RIGHT]
            moves += [move, other]
        else:
            names.append(name)
            moves.append(move + other if "-left-" in unit else 0.5 * (move + other))
    return names, np.stack(moves)


def _shut(template: Template, move: np.ndarray) -> np.ndarray:
    """A blink whose upper lid ends on the lower one, a hair's breadth over the eyeball."""
    ring = np.array(template.layout.rings["eye"][LID])
    count = len(ring)
    upper = ring[1 : count // 2]
    lower = ring[: count // 2 : -1]
    gap = template.v[upper] - template.v[lower]
    closing = (move[lower] - move[upper])[:, 1]
    middle = slice(2, -2)
    return move * float(np.median(gap[middle, 1] / np.maximum(closing[middle], 1e-4)))


def regress(pack: Pack, space: HeadSpace, template: Template, mean: np.ndarray, heads: int):
    """Bases of the template's vertices and of the eyeballs (centre and radius) on the head space's
    coefficients: identity [Ki, V, 3] and [Ki, 2, 4], expression likewise; prints the error."""
    v, f = space.mean.numpy(), space.faces.numpy()
    bind, weight = Binding(pack, mean, v, f), vertex_weight(v)
    groups = [pack.group_vertices[g] for g in ("eye_l", "eye_r")]

    def eyes(points: np.ndarray) -> np.ndarray:
        centres = np.stack([points[g].mean(0) for g in groups])
        radii = [np.linalg.norm(points[g] - c, axis=1).mean()
                 for g, c in zip(groups, centres, strict=True)]  # fmt: skip
        return np.concatenate([centres, np.array(radii)[:, None]], 1)

    at_rest, rows = eyes(mean), {"identity": [], "expression": []}
    for seed in range(heads + HELD_OUT):
        neutral, moved = sample_pair(pack, seed)
        a, b = bind(neutral), bind(moved)
        for name, template_move, pack_move, globe in (
            ("identity", a, neutral - mean, eyes(neutral) - at_rest),
            ("expression", b - a, moved - neutral, eyes(moved) - eyes(neutral)),
        ):
            own = template.carry @ pack_move
            rows[name].append((template_move.astype(np.float32), own.astype(np.float32), globe))
    out = {}
    for name, basis in (("identity", space.identity), ("expression", space.expression)):
        target, own, globe = (np.stack(x) for x in zip(*rows[name], strict=True))
        c = coefficients(basis.numpy(), weight, target)
        flat = np.concatenate([own.reshape(len(own), -1), globe.reshape(len(own), -1)], 1)
        used = c[:heads]
        solved = np.linalg.solve(used.T @ used + 1e-3 * np.eye(c.shape[1]), used.T @ flat[:heads])
        left = (flat[heads:] - c[heads:] @ solved)[:, : own[0].size].reshape(-1, *own[0].shape)
        print(f"{name}: held-out heads, {np.linalg.norm(left, axis=-1).mean() * 1e3:.2f} mm left")
        out[name] = solved[:, : own[0].size].reshape(-1, *own[0].shape)
        out[f"eye_{name}"] = solved[:, own[0].size :].reshape(-1, 2, 4)
    return out | {"eye_mean": at_rest}


def build(pack: Pack, heads: int) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """All tensors of engine.headspace.quad.QuadSpace, and the file's metadata."""
    space = load_default().space
    mean = np.zeros(pack.rest.shape)
    for seed in range(heads):
        mean += sample_pair(pack, seed)[0] / heads
    template = Template(pack, mean)
    bases = regress(pack, space, template, mean, heads)
    names, moves = shape_keys(pack, template)
    uvs = build_quad_uv.unwrap(
        template.v, template.quads, template.part, template.mirror, template.layout
    )
    first, second = template.detail()
    lids = np.array(template.layout.rings["eye"][LID])
    marks = template.skin.marks
    gaze = marks[[68, 69]] - bases["eye_mean"][:, :3]
    tensors = {
        "mean": template.v.astype(np.float32),
        "quads": template.quads.astype(np.int32),
        "uvs": uvs,
        "part": template.part.astype(np.int32),
        "follows": follows(template).astype(np.float32),
        "detail_1": first.astype(np.float16),
        "detail_2": second.astype(np.float16),
        "shapes": moves.astype(np.float16),
        "eye_gaze": (gaze / np.linalg.norm(gaze, axis=1, keepdims=True)).astype(np.float32),
        "lids": np.stack([lids, template.mirror[lids]]).astype(np.int32),
    }
    for name, value in bases.items():
        tensors[name] = value.astype(np.float32 if name.startswith("eye") else np.float16)
    facts = {
        "shapes": names,
        "parts": list(PARTS),
        "space": hashlib.sha256(space.mean.numpy().tobytes()).hexdigest(),
    }
    return tensors, {"quad": json.dumps(facts)}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--heads", type=int, default=2000)
    parser.add_argument("--pack", default=None, help="folder of the head data pack")
    args = parser.parse_args(argv)
    start = time.monotonic()
    tensors, metadata = build(Pack(args.pack), args.heads)
    temporary = args.out.with_suffix(".tmp")
    save_file(tensors, temporary, metadata)
    temporary.replace(args.out)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
