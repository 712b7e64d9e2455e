"""Pieces of work side by side on a processor's cores.

Volume rendering and attention are many small steps. Threads that share each step wait for one
another at its end, which costs as much as they win; threads that each take a piece of the picture,
or a head, do not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def side_by_side(
    work: Callable[..., T], pieces: Sequence[tuple[Any, ...]], check: Callable[[], None]
) -> list[T]:
    """work(*piece) of each piece, in order; the first item of a piece is a tensor.

    One thread a core where that helps (several pieces on a processor, without gradients), each
    computing with one; else one after the other. check: called before every piece, on the calling
    thread; may raise to cancel.
    """
    threads = torch.get_num_threads()
    helps = pieces and pieces[0][0].device.type == "cpu" and not torch.is_grad_enabled()
    if not helps or min(threads, len(pieces)) < 2:
        out = []
        for piece in pieces:
            check()
            out.append(work(*piece))
        return out
    # What PyTorch keeps for each thread has to be handed on.
    autocast = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    def alone(*piece: Any) -> T:
        with torch.no_grad(), torch.autocast("cpu", autocast[1], enabled=autocast[0]):
            return work(*piece)

    out, waiting = [], deque()
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for piece in pieces:
                check()
                waiting.append(pool.submit(alone, *piece))
                if len(waiting) > threads:  # so that cancelling is heard
                    out.append(waiting.popleft().result())
            out += [future.result() for future in waiting]
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)  # threads made from now on ask for it
    return out
