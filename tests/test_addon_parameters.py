"""The operator's properties are those of the jobs."""


import addon_profile
import pytest

SCRIPT = """
import json
out = {}
for name in ("reconstruct_head", "extract_mesh", "sample_head", "gallery", "interpolate",
             "keyframe_heads", "random_scene", "model_add", "reconstruct_object",
             "model_download", "compare_methods"):
    rna = getattr(bpy.ops.triplane, name).get_rna_type()
    out[name] = {
        p.identifier: {
            "type": p.type, "default": None if getattr(p, "is_array", False) else p.default,
            "min": getattr(p, "hard_min", None),
            "max": getattr(p, "hard_max", None), "size": getattr(p, "array_length", 0),
            "description": p.description,
            "items": [i.identifier for i in p.enum_items] if p.type == "ENUM" else [],
        } for p in rna.properties if p.identifier != "rna_type"}
print("JSON" + json.dumps(out))
"""
LARGEST = 2**31 - 1  # of Blender's integers
TYPES = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool, "ENUM": str}


@pytest.fixture(scope="module")
def properties(tmp_path_factory):
    profile = addon_profile.make_profile(tmp_path_factory.mktemp("profile"))
    return addon_profile.facts_of(profile, SCRIPT)


@pytest.mark.parametrize(
    ("operator", "job", "elsewhere", "more"),
    [
        ("reconstruct_head", "reconstruct", {"photo": "filepath", "models": None}, ()),
        ("reconstruct_object", "object", {"photo": "filepath", "models": None}, ()),
        ("model_download", "download_model", {"models": None}, ()),
        ("compare_methods", "compare", {"photo": "filepath", "name": "name", "models": None}, ()),
        ("extract_mesh", "extract", {"field": None, "photo": None, "camera": None}, ()),
        ("sample_head", "sample", {"models": None}, ("seed",)),
        ("gallery", "gallery", {"models": None}, ()),
        ("interpolate", "interpolate", {"models": None, "name": "name"}, ("start",)),
        ("model_add", "import_model", {"file": "filepath", "models": None}, ("filter_glob",)),
        (
            "keyframe_heads",
            "sample",
            dict.fromkeys(
                ("models", "at", "mix_seed", "mix_from", "mix_to", "edits", "name")
                + ("topology", "density")
            ),
            ("steps", "hold", "start", "keep_fields"),
        ),
        (
            "random_scene",
            "sample",
            dict.fromkeys(
                ("models", "heads", "at", "space", "mix_seed", "mix_from", "mix_to", "edits")
                + ("name", "topology", "density")
            ),
            ("count", "seed", "layout", "spacing", "location", "keep_fields"),
        ),
    ],
)
def test_every_parameter_is_a_property(properties, operator, job, elsewhere, more):
    """elsewhere: parameters that are a property of another name, or (None) not the artist's to
    give. more: properties that are no parameters."""
    from engine import jobs

    params = {p.name: p for p in jobs.load(job).params}
    given = dict(properties[operator])
    for name, where in elsewhere.items():
        if name in params:
            del params[name]
            if where:
                assert given.pop(where)["type"] == "STRING"
    for name in more:
        assert name == "filter_glob" or given[name]["description"], name
        del given[name]
    assert set(params) == set(given)
    for name, param in params.items():
        found = given[name]
        assert TYPES[found["type"]] is param.type, name
        assert found["description"], name
        assert found["size"] == param.size, name
        if param.choices:
            assert tuple(found["items"]) == param.choices, name
        if not param.size:
            assert found["default"] == pytest.approx(param.default), name
        if param.minimum is not None and not param.size:
            assert found["min"] == pytest.approx(param.minimum), name
        if param.maximum is not None and not param.size:
            assert found["max"] == min(param.maximum, LARGEST), name
