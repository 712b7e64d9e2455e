"""The page of the editing table, written by edit_table.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

PAGE = """# What edits do: figures of the sliders

Measured on the edited heads themselves, not on their codes: {heads} held-out people whose portraits
went through the preset *fast*, and {heads} heads from seeds. Units are those of
[directions.md](directions.md) (brows: millimetres that their inner ends rise). `likeness` is the
distance of features of our perception network to the unedited head's, mean over three views, as a
share of the mean distance between two of the heads: 0 is the same picture, 1 another person's. The
network was not trained to tell people apart; an edit that is meant to be seen moves it.

    python -m engine.training.edit_table --work build/training/edits

makes this page.

## Heads from photos

{photos}

## Heads from seeds

{seeds}

`most else`: of all other attributes the one that changes most at an amount of 1 (of expressions,
brows, smile and the nose are not counted: they are what makes them). Age and gender are read off
pictures by networks and a regressor, and shapes that belong to them (a wider jaw, say) change what
is read. A field's warp has a node every 6 mm, so that it makes less of small shapes (the nose's
width, a smile) than the coefficients ask for; the mesh of quads follows the coefficients.

## All attributes

Change of each attribute (columns) at an amount of 1 of each direction (rows), heads from photos.

{matrix}
"""
OWN = {"anger": ("brows", -1), "sadness": ("brows", 1), "surprise": ("brows", 1)}
# Not counted as side effects of each other.
KIN = {"smile": ("brows",), **dict.fromkeys(OWN, ("smile", "brows", "nose width", "nose size"))}


def _rows(heads: Sequence[dict], name: str) -> tuple[list[float], list[dict], list[float]]:
    """The two amounts of a direction, its mean changes and its mean distance at each."""
    of = [[row for row in head["rows"] if row["name"] == name] for head in heads]
    amounts = [row["amount"] for row in of[0]]
    changes, away = [], []
    for k in range(len(amounts)):
        keys = of[0][k]["change"]
        changes.append(
            {key: float(np.mean([rows[k]["change"][key] for rows in of])) for key in keys}
        )
        away.append(float(np.mean([rows[k]["away"] for rows in of])))
    return amounts, changes, away


def _own(name: str) -> str:
    return OWN[name][0] if name in OWN else name


def _table(heads: Sequence[dict], apart: float) -> str:
    lines = [
        "| direction | amounts | own change | most else | likeness |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in dict.fromkeys(row["name"] for row in heads[0]["rows"]):
        amounts, changes, away = _rows(heads, name)
        own = _own(name)
        free = {own, *KIN.get(name, ())}
        rest = {key: x for key, x in changes[-1].items() if key not in free}
        worst = max(rest, key=lambda key: abs(rest[key]))
        cells = [
            name,
            ", ".join(f"{a:g}" for a in amounts),
            ", ".join(f"{change[own]:+.2f}" for change in changes),
            f"{worst} {rest[worst]:+.2f}",
            ", ".join(f"{x / apart:.2f}" for x in away),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _matrix(heads: Sequence[dict], attributes: Sequence[str]) -> str:
    lines = [
        "| direction | " + " | ".join(attributes) + " |",
        "| --- |" + " --- |" * len(attributes),
    ]
    for name in dict.fromkeys(row["name"] for row in heads[0]["rows"]):
        change = _rows(heads, name)[1][-1]
        cells = [
            f"**{change[key]:.2f}**" if key == _own(name) else f"{change[key]:.2f}"
            for key in attributes
        ]
        lines.append(f"| {name} | " + " | ".join(cells).replace("-0.00", "0.00") + " |")
    return "\n".join(lines)


def card(
    kinds: Mapping[str, Sequence[dict]],
    apart: Mapping[str, float],
    attributes: Sequence[str],
) -> str:
    """edits.md. kinds: measured heads (edit_table.measure) by kind; apart: mean distance of
    features between two heads of a kind."""
    tables = {kind: _table(heads, apart[kind]) for kind, heads in kinds.items()}
    return PAGE.format(
        heads=len(kinds["photos"]),
        matrix=_matrix(kinds["photos"], attributes),
        **tables,
    )
