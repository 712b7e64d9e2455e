"""The lock files agree with one another, and with what Blender's installer accepts."""

from __future__ import annotations

import re
import tomllib

import pytest

from wheels import relock

PIN = re.compile(r"^([a-z0-9-]+)==([^ ]+) \\$", re.MULTILINE)


@pytest.fixture(scope="module")
def lock(root) -> dict:
    return tomllib.loads((root / "wheels" / "lock.toml").read_text())


@pytest.fixture(scope="module")
def requirements(root) -> dict[str, str]:
    return {g: (root / "requirements" / f"{g}.txt").read_text() for g in relock.GROUPS}


def test_every_pin_of_the_in_files_is_locked(requirements):
    for group, text in requirements.items():
        locked = dict(PIN.findall(text))
        for line in relock.read_in(group):
            name, version = line.split("==")
            assert locked.get(relock.canonical(name)) == version, f"{line}: run make relock"


def test_every_requirement_has_hashes_and_stands_once(requirements):
    seen = set()
    for group, text in requirements.items():
        body = "".join(line + "\n" for line in text.splitlines() if not line.startswith("#"))
        blocks = re.split(r"\n(?=\S)", body.strip())
        for block in blocks:
            name = block.partition("==")[0]
            assert name not in seen, f"{name} stands in two lock files"
            seen.add(name)
            hashes = re.findall(r"--hash=sha256:([0-9a-f]{64})\b", block)
            assert hashes, f"{name} in {group}.txt has no hash"
            assert len(block.splitlines()) == 1 + len(hashes), block


def test_bundled_wheels_are_the_engine_group_less_what_blender_brings(lock, requirements):
    engine = dict(PIN.findall(requirements["engine"]))
    bundled = {package["name"] for package in lock["package"]}
    assert bundled == set(engine) - set(relock.NOT_BUNDLED)
    assert "numpy" not in bundled
    for package in lock["package"]:
        assert set(package["wheels"]) == set(lock["platforms"]) == set(relock.PLATFORMS)
        for wheel in package["wheels"].values():
            assert wheel["version"].partition("+")[0] == engine[package["name"]]
            assert wheel["sha256"] in requirements["engine"]


@pytest.mark.parametrize("platform", relock.PLATFORMS)
def test_blenders_installer_takes_the_wheels(lock, blender_installer, platform):
    wheels = [package["wheels"][platform] for package in lock["package"]]
    files = [f"./wheels/{wheel['file']}" for wheel in wheels]
    assert blender_installer.pkg_manifest_validate_field_wheels(files, True) is None
    assert blender_installer.paths_filter_wheels_by_platform(files, platform) == files
    assert blender_installer.python_versions_from_wheels(files) == {(3, 11)}
    for wheel in wheels:
        assert wheel["tags"] == "-".join(wheel["file"].removesuffix(".whl").split("-")[-3:])


def test_linux_torch_is_the_cpu_build(lock):
    torch = next(p for p in lock["package"] if p["name"] == "torch")
    assert torch["wheels"]["linux-x64"]["version"].endswith("+cpu")


def test_every_bundled_package_has_a_licence(lock):
    for package in lock["package"]:
        assert package["licence"] == relock.LICENCES[package["name"]]
