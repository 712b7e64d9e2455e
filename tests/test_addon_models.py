"""The preferences' list of models: added by the real job, then renamed, checked, removed."""


import addon_profile
import checkpoint_files
import pytest

SCRIPT = """
import json
facts, folder = {}, os.environ["FOLDER"]
ops, models = bpy.ops.triplane, module("operators.models")
def names():
    return [(m.name, m.name == models.default()) for m in models.listed()]
def tried(call, **given):
    try:
        return list(call(**given))
    except RuntimeError as error:
        return str(error)
facts["own"] = models.folder()
facts["before"] = names(), os.path.exists(models.folder())
facts["added"] = tried(ops.model_add, filepath=os.path.join(folder, "Cärs 1.pkl"))
facts["after"] = names()
found = models.find("Cärs 1")
facts["facts"] = [found.resolution, found.noncommercial, found.source_file]
facts["twice"] = tried(ops.model_add, filepath=os.path.join(folder, "Cärs 1.pkl"), name="Cärs 1")
facts["text"] = tried(ops.model_add, filepath=os.path.join(folder, "text.pkl"))
facts["none"] = tried(ops.model_add, filepath="")
facts["default"] = tried(ops.model_default, name="Cärs 1"), names()
facts["renamed"] = tried(ops.model_rename, name="Cärs 1", to="cars"), names()
facts["wrong_name"] = tried(ops.model_rename, name="cars", to="a/b")
facts["verified"] = tried(ops.model_verify, name="cars")
facts["built_in"] = tried(ops.model_verify, name="built-in")
facts["kept"] = tried(ops.model_remove, name="built-in")
path = models.find("cars").path
facts["mark"] = models.checked.get(models.stamp(path))
with open(path, "r+b") as file:
    file.seek(-100, 2)
    file.write(b"damaged")
facts["no_mark"] = models.checked.get(models.stamp(path))
facts["damaged"] = tried(ops.model_verify, name="cars")
facts["listing"] = models.checked[models.stamp(path)]
facts["unknown"] = tried(ops.model_verify, name="nobody")
prefs.models_folder = os.path.join(folder, "elsewhere")
facts["elsewhere"] = names()
prefs.models_folder = ""
facts["removed"] = tried(ops.model_remove, name="cars"), names(), path.exists()
facts["job"] = module("operators.session").running() is None
print("JSON" + json.dumps(facts))
"""


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    weights = checkpoint_files.weights()
    (folder / "Cärs 1.pkl").write_bytes(checkpoint_files.training_pickle(weights))
    (folder / "text.pkl").write_text("no model")
    profile = addon_profile.make_profile(tmp_path_factory.mktemp("profile"))
    found = addon_profile.facts_of(profile, SCRIPT, env={"FOLDER": str(folder)})
    assert not list(folder.rglob("EXECUTED")) and not list(profile.rglob("EXECUTED"))
    return found


def test_a_checkpoint_becomes_a_model_of_the_extensions_own_folder(facts):
    assert facts["own"].endswith("triplane/models")
    assert facts["before"] == [[["built-in", True]], False]
    assert facts["added"] == ["FINISHED"]
    assert facts["after"] == [["built-in", True], ["Cärs 1", False]]
    assert facts["facts"] == [128, True, "Cärs 1.pkl"]


def test_what_cannot_be_added_is_told_in_a_sentence(facts):
    assert "There is a model named" in facts["twice"]
    for key in ("twice", "text", "none"):
        assert facts[key].startswith("Error: ") and "Something went wrong" not in facts[key]
        assert "Traceback" not in facts[key]
    assert facts["job"]


def test_default_and_names(facts):
    assert facts["default"] == [["FINISHED"], [["built-in", False], ["Cärs 1", True]]]
    assert facts["renamed"] == [["FINISHED"], [["built-in", False], ["cars", True]]]
    assert "cannot be a model's name" in facts["wrong_name"]


def test_a_damaged_file_is_found(facts):
    assert facts["verified"] == facts["built_in"] == ["FINISHED"]
    assert facts["mark"] == "" and facts["no_mark"] is None
    assert facts["damaged"].startswith("Error: ") and facts["listing"] in facts["damaged"]
    assert "no model named nobody" in facts["unknown"]


def test_a_model_goes_but_never_the_built_in_one(facts):
    assert "built-in model" in facts["kept"]
    assert facts["elsewhere"] == [["built-in", True]]
    assert facts["removed"] == [["FINISHED"], [["built-in", True]], False]
