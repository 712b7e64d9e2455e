"""Comparing methods from Blender, and what its panel says of a head that is not to be trusted."""

from __future__ import annotations

import addon_profile
import pytest

pytestmark = pytest.mark.slow

COMPARE = """
import json
photo, folder = os.environ["PHOTO"], os.environ["FOLDER"]
done = bpy.ops.triplane.compare_methods(
    filepath=photo, methods="encoder", preset="fast", size=64, folder=folder)
image = next(i for i in bpy.data.images if "compared" in i.name)
facts = {"done": list(done), "size": list(image.size), "path": bpy.path.abspath(image.filepath),
         "heads": sum("triplane_record" in o for o in bpy.data.objects)}
try:
    bpy.ops.triplane.compare_methods(filepath=photo, methods="stylus")
except RuntimeError as error:
    facts["wrong"] = str(error)
print("JSON" + json.dumps(facts))
"""

WARN = """
import json
head = module("operators.build.head")
sidebar = module("panels.sidebar")
made = bpy.data.objects.new("made", bpy.data.meshes.new("made"))
quality = {"score": 0.31, "warnings": ["One.", "Two."]}
made[head.RECORD] = json.dumps({"figures": {"quality": quality}})
facts = {"quality": head.quality(head.record(made)), "shown": dict(sidebar._figures(made))}
made[head.RECORD] = json.dumps({"figures": {}})
facts["none"] = head.quality(head.record(made)), "Trust" in str(dict(sidebar._figures(made)))
print("JSON" + json.dumps(facts))
"""


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    return addon_profile.make_profile(tmp_path_factory.mktemp("profile"), fakes=False)


def test_the_sheet_becomes_an_image_and_makes_no_head(profile, photo, tmp_path):
    env = {"PHOTO": str(photo), "FOLDER": str(tmp_path)}
    facts = addon_profile.facts_of(profile, COMPARE, env=env, timeout=600)
    assert facts["done"] == ["FINISHED"] and facts["heads"] == 0
    assert facts["path"].endswith("astronaut compared.png") and facts["size"][0] > 8 * 64
    assert (tmp_path / "astronaut compared.json").is_file()
    assert "There is no method stylus" in facts["wrong"]


def test_the_panel_shows_score_and_warnings(profile):
    facts = addon_profile.facts_of(profile, WARN)
    assert facts["quality"] == [0.31, ["One.", "Two."]]
    assert facts["shown"]["Trust in the result"] == "31%"
    assert facts["none"] == [[None, []], False]
