"""The model card of the semantic directions, written with them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

CARD = """# Model card: `directions.safetensors`, semantic directions of the built-in head model

**What it is.** One file ({size} kB, half precision): for each name a change of the head model's
code (rows identity, expression, hair weights, w+; see `prior.md`), read by
`engine/systems/head/directions.py`. `edits` of the job `sample` takes amounts ("age=1, smile=0.5"),
`python -m engine sheet SEED --directions all --labels --out DIR` shows them
(`docs/images/directions.png`).

| direction | an amount of 1 | range |
| --- | --- | --- |
{meanings}

**How they were found.** Half of {people} training people (CC0 material, seeds below {seeds}; no
photo of a person) as codes: coefficients by least squares, w+ by the shipped encoder from an evenly
lit portrait. Ridge regression of codes on all that is known of a person together, so that a
direction is the effect of one thing with the others held: for age, gender, skin tone and beard
those, hair length, weight, muscle and descent; for a shape the other shapes, five more proportions
of the face, age, gender, weight and descent; for the smile an open mouth and closed eyes. Then
scaled, and rid of what they did to attributes of another kind. Hair length is not regressed: it
moves the weights of the styles towards `long01` and away from none.

    python -m engine.training.build_directions --work build/training/directions

makes file and card again, and must be run after the head model's weights have changed (these
belong to generator `{weights}`).

**Expressions.** {expressions} are composed of the shape keys of the mesh of quads (see `quad.md`),
fitted by the expression space's coefficients: {explained} of the squared displacement. They are
part of the shape alone: no wrinkle is painted.

    python -m engine.training.directions_composed

puts them into the file by itself.

**What each does to each.** On {tested} held-out people with calm faces: mean change of every
attribute, in its unit (above), between amounts of -1/2 and 1/2 (smile: 0 and 1). Attributes are
measured: lengths between landmarks, what the expression does to them, colours that the generator
paints (beard: how much darker chin and upper lip are than the cheeks), the reach of the hair's
mass. Age and gender are read by a ridge regressor on identity and w+ that learned on the other
half of the people (correlation with the truth on people that it has not seen:
{years:.2f} and {gender:.2f}).

{table}

**Left out, since the head model cannot express them yet.** *Eyes closed*: the warp's lattice (6 mm)
is too coarse to carry the lids over the eyes. *Mouth open*: lips do not part in this model's
fields; the jaw drops and the closed lips are drawn out. *Glasses* are no part of the head model.

**Limits.** Linear: strong amounts of several together leave the range of people. Beards and
wrinkles are painted, not shaped; less beard than none paints a light one. Between two styles the
hair is a mix of their masses. Gender moves what differs between the material's women and men, the
width of face and jaw and the nose among it; that is what the word means, and is not taken out.

**Licence.** GPL-3.0-or-later, like the rest of Triplane; the training material is CC0.
"""


def meaning(name: str, unit: float) -> tuple[str, tuple[float, float]]:
    """What an amount of 1 is, in words, and the direction's range."""
    deviation = "one standard deviation over people"
    words = {
        "age": (f"{unit:.0f} years older ({deviation})", (-3, 3)),
        "gender": ("half the way from women to men (one standard deviation)", (-3, 3)),
        "skin tone": (f"lighter by {unit:.2f} of white ({deviation})", (-3, 3)),
        "hair length": (f"reaches {unit:.0f} mm further down ({deviation})", (-2, 2)),
        "beard": ("one standard deviation over men", (-1, 2)),
        "smile": ("a strong smile (one in twenty people's)", (-0.5, 1.5)),
    }
    return words.get(name, (f"{unit:.1f} mm more ({deviation})", (-3, 3)))


def card(
    about: dict, attributes: Sequence[str], table: np.ndarray, people: int, tested: int
) -> str:
    """directions.md: about is the file's metadata, table [directions, attributes] in units."""
    names = about["names"]
    meanings = [
        f"| {name} | {said} | {low:g} to {high:g} |"
        for name, said, (low, high) in zip(names, about["meaning"], about["ranges"])
    ]
    rows = [
        "| direction | " + " | ".join(attributes) + " |",
        "| --- |" + " --- |" * len(attributes),
    ]
    for name, line in zip(names, table):
        cells = [
            f"**{x:.2f}**" if attribute == name else f"{x:.2f}".replace("-0.00", "0.00")
            for attribute, x in zip(attributes, line)
        ]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    shares = about["explained"]
    return CARD.format(
        expressions=", ".join(f"*{name}*" for name in shares),
        explained=", ".join(f"{share:.0%}" for share in shares.values()),
        people=people,
        tested=tested,
        meanings="\n".join(meanings),
        table="\n".join(rows),
        size=f"{about['bytes'] / 1e3:.0f}",
        seeds=about["seeds"],
        weights=about["weights"][:16],
        years=about["regressor"][0],
        gender=about["regressor"][1],
    )
