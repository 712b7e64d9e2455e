"""Rules of the whole repository that no single room can keep, read from the syntax trees."""

from __future__ import annotations

import ast
import os
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SKIPPED = {".venv", ".git", "build", "dist", "__pycache__", ".pytest_cache", ".ruff_cache"}
TEXT = {".py", ".md", ".toml", ".txt", ".in", ".json", ".yml", ".sh", ""}
LINES_AT_MOST = {True: 600, False: 400}  # of a test; of a file of the program: one sitting
BYTES_AT_MOST = 60_000_000  # of any file: the weights are the largest

# Which rooms of the engine may import which: only from their own row or from one further down.
ROWS = (
    ("__main__", "model_command", "batch", "batch_command", "batch_ray", "worker", "training"),
    ("jobs",),
    ("systems", "inversion", "portrait", "surface", "checkpoints", "sampling", "views", "cutout",
     "editing"),
    ("fields", "render", "headspace"),
    ("networks",),
    (
        "client", "process", "failures", "wire", "device", "threads", "cameras", "errors", "memory",
        "weights",
    ),
)  # fmt: skip
HEIGHT = {room: -row for row, rooms in enumerate(ROWS) for room in rooms}
# What only the engine's process may load: Blender would wait seconds for these.
ENGINES_ONLY = {"torch", "scipy", "PIL", "mcubes", "safetensors", "fast_simplification", "numba"}


@cache
def files() -> tuple[Path, ...]:
    """Every file of the checkout that is not made by a command."""
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in SKIPPED]
        found += [Path(folder, name) for name in names]
    return tuple(sorted(found))


@cache
def sources(*folders: str) -> tuple[Path, ...]:
    """The Python files below these folders (all of them without any)."""
    python = (p for p in files() if p.suffix == ".py")
    return tuple(p for p in python if not folders or p.relative_to(ROOT).parts[0] in folders)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_name(path: Path) -> str:
    """Dotted name from the repository's root; the package's own __init__ is ''."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports(path: Path, *, at_load_only: bool = False) -> tuple[str, ...]:
    """Absolute dotted names that a file imports, `from a import b` as `a.b` (a name or a module).

    at_load_only: leave out what is imported inside functions or only for type checkers.
    """
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    package = [part for part in package if part]
    names = []
    stack: list[ast.AST] = [tree(path)]
    while stack:
        node = stack.pop()
        if at_load_only:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                stack += node.orelse
                continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            names += [f"{base}.{alias.name}" if base else alias.name for alias in node.names]
        stack += ast.iter_child_nodes(node)
    return tuple(names)


def room(dotted: str) -> str:
    """engine.<room>.…'s room; '' for anything else."""
    parts = dotted.split(".")
    return parts[1] if parts[0] == "engine" and len(parts) > 1 else ""


def calls(path: Path):
    """(dotted name of what is called, the call) for every call by a plain name."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            yield ast.unparse(node.func), node


def test_sources_were_found():
    assert len(sources("engine")) > 20 and sources("operators") and sources("panels")


def test_no_pickle_is_read():
    """Nothing that a file or a message says is executed."""
    bad = []
    for path in sources():
        if path.parent.name == "tests":
            continue  # they may write evil files, to see them refused
        for name in imports(path):
            if name.split(".")[0] in {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal"}:
                bad.append(f"{short(path)} imports {name}")
        for name, call in calls(path):
            given = {k.arg: ast.unparse(k.value) for k in call.keywords}
            if name == "torch.load" and given.get("weights_only") != "True":
                bad.append(f"{short(path)}:{call.lineno} torch.load without weights_only=True")
            if name in {"np.load", "numpy.load"} and given.get("allow_pickle", "False") != "False":
                bad.append(f"{short(path)}:{call.lineno} np.load with allow_pickle")
            if name in {"eval", "exec"}:
                bad.append(f"{short(path)}:{call.lineno} {name}()")
            if name.startswith(("os.system", "os.popen")) or given.get("shell") == "True":
                bad.append(f"{short(path)}:{call.lineno} starts a shell")
    assert not bad, "\n".join(bad)


def test_engine_knows_no_blender():
    bad = [
        f"{short(path)} imports {name}"
        for path in sources("engine")
        for name in imports(path)
        if name.split(".")[0] in {"bpy", "bmesh", "mathutils", "gpu", "operators", "panels"}
    ]
    assert not bad, "\n".join(bad)


def test_engine_imports_go_down_only():
    bad = []
    for path in sources("engine"):
        here = room(module_name(path))
        if not here:
            continue
        assert here in HEIGHT, f"{short(path)}: give the room {here} its row, here and in DESIGN"
        for name in imports(path):
            there = room(name)
            if there not in HEIGHT:  # a name of engine/__init__, or no module of ours
                continue
            if HEIGHT[there] > HEIGHT[here]:
                bad.append(f"{short(path)} imports {name}: {there} stands above {here}")
            if there == "training" and here != "training":
                bad.append(f"{short(path)} imports {name}: training is no part of the program")
    assert not bad, "\n".join(bad)


def test_systems_do_not_know_one_another():
    bad = []
    for path in sources("engine"):
        parts = module_name(path).split(".")
        if parts[:2] != ["engine", "systems"] or len(parts) < 3:
            continue
        for name in imports(path):
            other = name.split(".")
            if other[:2] == ["engine", "systems"] and len(other) > 2 and other[2] != parts[2]:
                bad.append(f"{short(path)} imports {name}")
    assert not bad, "\n".join(bad)


def test_blender_side_knows_of_the_engine_what_it_may():
    allowed = ("client", "process", "wire", "errors", "cameras", "jobs", "checkpoints")
    bad = []
    for path in sources("operators", "panels"):
        for name in imports(path):
            # Of the checkpoints only the list of models, which needs the standard library alone.
            if name.startswith(("engine.checkpoints.registry", "engine.checkpoints.catalogue")):
                continue
            # Of the views only where cameras stand: numpy alone.
            if name.startswith(("engine.views.rigs", "engine.views.scenes")):
                continue
            if room(name) and room(name) not in allowed:
                bad.append(f"{short(path)} imports {name}")
            if path.is_relative_to(ROOT / "operators") and name.startswith("panels"):
                bad.append(f"{short(path)} imports {name}: operators do not know panels")
    assert not bad, "\n".join(bad)


def module_file(dotted: str) -> Path | None:
    """The file of a module of ours, also for `module.name`; None for other people's modules."""
    parts = dotted.split(".")
    for length in (len(parts), len(parts) - 1):
        base = ROOT.joinpath(*parts[:length])
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if length and path.is_file():
                return path
    return None


def loaded_in_blender() -> dict[Path, Path]:
    """{file: the file that imports it} for all that Blender's process may load of ours."""
    own = [ROOT / "__init__.py", *sources("operators", "panels")]
    # The catalogue loads jobs by name, for their parameters; no import statement says so.
    jobs = [p for p in sources("engine") if p.parent.name == "jobs" and "\nJOB = " in p.read_text()]
    first = own + jobs
    reached = {path: path for path in first}
    queue = list(first)
    while queue:
        path = queue.pop()
        for name in imports(path, at_load_only=path not in own):
            parts = name.split(".")
            # Importing a.b.c runs a and a.b as well.
            for length in range(1, len(parts) + 1):
                found = module_file(".".join(parts[:length]))
                if found is not None and found not in reached:
                    reached[found] = path
                    queue.append(found)
    return reached


def test_blender_loads_neither_torch_nor_its_kin():
    reached = loaded_in_blender()
    assert ROOT / "engine" / "client.py" in reached, "the walk has lost its way"
    bad = []
    for path, importer in reached.items():
        # The extension's own files must not even do it late; the engine's may inside a function.
        own = path.relative_to(ROOT).parts[0] != "engine"
        for name in imports(path, at_load_only=not own):
            if name.split(".")[0] in ENGINES_ONLY:
                bad.append(f"{short(path)} (from {short(importer)}) imports {name}")
    assert not bad, "\n".join(bad)


def test_engine_files_loaded_in_blender_import_relatively():
    """There the package is not called `engine` but `bl_ext.<repository>.triplane.engine`."""
    bad = []
    for path in loaded_in_blender():
        if path.is_relative_to(ROOT / "engine"):
            for node in tree(path).body:
                if isinstance(node, ast.ImportFrom) and not node.level:
                    if (node.module or "").split(".")[0] == "engine":
                        bad.append(f"{short(path)}:{node.lineno} from {node.module} import …")
    assert not bad, "\n".join(bad)


# Written in pieces, so that this file does not break its own rule.
HOSTS = "|".join(
    re.escape(host)
    for host in (
        "pypi" + ".org",
        "python" + "hosted.org",
        "download.py" + "torch.org",
        "deb." + "debian.org",
        "registry.npm" + "js.org",
    )
)
FOLDERS = re.compile(r"(?<![\w.~}])/(?:work|root|opt|home|Users)/[\w.]|[A-Z]:\\\\?Users\\")


@pytest.mark.parametrize(
    ("rule", "pattern"),
    [("a folder of one machine", FOLDERS), ("a package registry's host", re.compile(HOSTS))],
)
def test_no_file_names(rule, pattern):
    bad = []
    for path in files():
        if path.suffix in TEXT and path.name not in {"LICENSE", Path(__file__).name}:
            for number, line in enumerate(path.read_text().splitlines(), 1):
                if pattern.search(line):
                    bad.append(f"{short(path)}:{number} names {rule}: {line.strip()[:80]}")
    assert not bad, "\n".join(bad)


def test_files_have_a_size_one_can_bear():
    bad = [
        f"{short(p)}: {p.stat().st_size} bytes" for p in files() if p.stat().st_size > BYTES_AT_MOST
    ]
    for path in sources():
        lines = len(path.read_text().splitlines())
        if lines > LINES_AT_MOST[path.parent.name == "tests"]:
            bad.append(f"{short(path)}: {lines} lines")
    assert not bad, "\n".join(bad)


def test_versions_agree():
    version = tomllib.loads((ROOT / "blender_manifest.toml").read_text())["version"]
    engine = re.search(r'__version__ = "(.+)"', (ROOT / "engine" / "__init__.py").read_text())[1]
    assert engine == version
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_links_in_the_documents_lead_somewhere():
    bad = []
    for path in files():
        if path.suffix == ".md":
            for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text()):
                if "://" not in target and not (path.parent / target).exists():
                    bad.append(f"{short(path)}: {target}")
    assert not bad, "\n".join(bad)
