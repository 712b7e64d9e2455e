"""Views of a head whose missing parts a network paints, and what colours learn from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from engine.fields.head import HeadField
from engine.fields.strands import Strands
from engine.inversion import fuse, pseudo
from engine.inversion.appearance import Target
from engine.inversion.colours import Fitted
from engine.portrait.align import Aligned
from engine.systems.warpgan import inpaint as svinet


def inpainted_views(
    head: Fitted,
    aligned: Aligned,
    ws: Tensor,
    angles: Sequence[tuple[float, float]],
    strands: Strands | None,
    check: Callable[[], None] = lambda: None,
    size: int = pseudo.SIZE,
) -> list[pseudo.PseudoView]:
    """Pseudo-views of a head at (yaw, pitch) in degrees whose holes SVINet has painted.
    ws [1, n, w]: the head's style code; strands: the head's, drawn over its colours; size: pixels a
    side, see svinet.inpaint()."""
    net = svinet.load_svinet()
    field = head.field
    field.strands = strands
    picture = torch.from_numpy(aligned.crop).float() / 255
    trust = torch.from_numpy(np.ascontiguousarray(head.trust))
    sources = pseudo.sources_of(field, picture, trust, head.camera, size, check)
    views = []
    for camera in pseudo.cameras_around(angles, size, without=head.camera):
        view = pseudo.pseudo_view(field, sources, camera, check)
        check()
        pictures = (view.filled(), view.render, view.mirror * view.alpha[..., None])
        warped, render, mirror = (x.permute(2, 0, 1)[None] for x in pictures)
        seen, mirror_seen = (x[None, None] for x in (view.visible, view.mirror_visible))
        painted = svinet.inpaint(net, warped, render, seen, mirror, mirror_seen, ws)
        view.compose(painted[0].permute(1, 2, 0))
        views.append(view)
    return views


def with_views(target: Target, field: HeadField, views: Sequence[pseudo.PseudoView]) -> Target:
    """The target with what was painted into views: where the photo shows nothing, expected colours
    change as the views' did from what they were painted over, as far as each is sure.

    Changes, since a render only comes near to what is expected: without paint nothing moves. And
    not points to be met like the photo's: a view's pixels are many, and would outweigh it.
    """
    if not views:
        return target
    painted = []
    for view in views:
        weight = view.confidence * (1 - view.visible)
        after = fuse.seen_in(field, view, weight)
        before = fuse.seen_in(field, replace(view, picture=view.filled()), weight)
        painted.append(replace(after, colour=after.colour - before.colour))
    change, weight = fuse.read(fuse.together(painted), target.everywhere)
    share = (weight / pseudo.INPAINTED).clamp(0, 1) * target.hidden
    expected = target.expected + share[:, None] * change
    return replace(target, expected=expected.clamp(0, 1))
