"""Layout rules: allowed imports, locations of packages, and file lengths."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mmpost"
LINKED = ("configs", "data", "rewards", "tasks")

TOP_LEVEL = {
    *(".ci", ".gitignore", ".pre-commit-config.yaml"),
    *("AGENTS.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "pyproject.toml"),
    *("configs", "data", "docs", "mmpost", "rewards", "scripts", "studies", "tasks", "tests"),
}

LEVELS = (
    *("errors", "config", "core", "types", "tables"),
    *("data.media", "data.signals", "data.sources", "data.readers", "data.formats", "data.worlds"),
    *("rewards", "objectives", "updates", "edits", "transforms", "metrics"),
    *("judges", "judges.radiology", "judges.tables", "methods", "benchmarks"),
    *("models.media", "models.hub", "models.loading", "models.prefix", "models.chat"),
    *("models.embedding", "models.builtin", "models.opening"),
    *("rollout", "listeners", "report"),
    *("training", "selection", "runs", "checks", "studies", "integrations", "commands", "cli", "", "tasks"),
)
"""Packages and modules from the bottom to the top: each may import only from those before it, and from itself.

Tasks come last because nothing imports a task: they are found by name. "" is `mmpost` itself, which only re-exports.
"""

MEDIA = ("data.", "models.builtin")
ONLY_IN = {
    "vllm": ("rollout.vllm",),
    "deepspeed": ("engine.deepspeed",),
    "lmms_eval": ("integrations.lmms_eval",),
    "torch.distributed": ("core.distributed",),
    "PIL": MEDIA,
    "av": MEDIA,
    "pydicom": MEDIA,
    "decord": (*MEDIA, "commands.doctor"),
    "torchcodec": (*MEDIA, "commands.doctor"),
}
"""Packages that may be imported only in these places."""

LIGHT = ("", "errors", "config", "cli", "core.run_files", "core.display", "report")
NOT_AT_MODULE_LEVEL = {
    **{name: {"torch", "transformers", "peft", "datasets", "mmpost.types"} for name in LIGHT},
    "rewards": {"torch", "transformers", "datasets"},
    "judges": {"torch", "transformers", "httpx", "tenacity"},
    "tasks": {"torch", "transformers", "requests", "httpx"},
    "objectives": {"transformers", "requests", "httpx"},
}
"""Packages that must not be imported at module level."""


class Import:
    """One import statement, or `importlib.import_module` of a constant."""

    def __init__(self, module: str, line: int, lazy: bool) -> None:
        self.module, self.line, self.lazy = module, line, lazy


def modules() -> dict[str, Path]:
    """Every module of mmpost, by its name without `mmpost.`."""
    paths = {}
    for folder, _, files in os.walk(PACKAGE, followlinks=True):
        for file in files:
            if file.endswith(".py"):
                path = Path(folder) / file
                parts = path.relative_to(PACKAGE).with_suffix("").parts
                paths[".".join(part for part in parts if part != "__init__")] = path
    return paths


MODULES = modules()


def resolve(module: str, name: str) -> str:
    """`from module import name` counts as module.name if that is a module of mmpost."""
    full = f"{module}.{name}"
    return full if full.removeprefix("mmpost.") in MODULES and full.startswith("mmpost.") else module


def imports(tree: ast.Module, typing_only: bool = True) -> Iterator[Import]:
    """All imports of a module; `typing_only=False` leaves out those under TYPE_CHECKING."""

    def visit(node: ast.AST, lazy: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import; write the full name"
            assert node.module is not None
            if node.module == "torch" and any(alias.name == "distributed" for alias in node.names):
                yield Import("torch.distributed", node.lineno, lazy)
            yield from {
                statement.module: statement
                for statement in (Import(resolve(str(node.module), a.name), node.lineno, lazy) for a in node.names)
            }.values()
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.distributed":
            yield Import("torch.distributed", node.lineno, lazy)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (Import(str(a.value), node.lineno, lazy) for a in node.args if isinstance(a, ast.Constant))
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING") and not typing_only:
            return
        inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    yield from visit(tree, False)


def parse(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(), str(MODULES[name]))


def within(module: str, allowed: str) -> bool:
    return module == allowed or module.startswith(allowed.rstrip(".") + ".")


def level(name: str) -> int:
    """Index in LEVELS of the longest entry that contains a module."""
    entries = [entry for entry in LEVELS if entry and within(name, entry)]
    return LEVELS.index(max(entries, key=len) if entries else "")


def test_every_module_lies_in_a_level_and_every_level_has_modules() -> None:
    levels = {LEVELS[level(name)] for name in MODULES}
    assert levels == set(LEVELS)
    packages = ("configs", "data", "models")  # folders whose own __init__ holds no code
    assert [name for name in MODULES if LEVELS[level(name)] == "" and name not in packages] == [""]


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_package_imports_only_from_below(name: str) -> None:
    wrong = []
    for statement in imports(parse(name)):
        if not within(statement.module, "mmpost") or statement.module == "mmpost":
            continue
        target = statement.module.removeprefix("mmpost.")
        if level(target) > level(name):
            wrong.append(f"{MODULES[name].relative_to(ROOT)}:{statement.line} imports mmpost.{target} from above")
    assert not wrong, "\n".join(wrong)


def test_there_is_no_import_cycle() -> None:
    """Also within packages, in functions, and under TYPE_CHECKING."""
    graph = {
        name: {
            statement.module.removeprefix("mmpost.")
            for statement in imports(parse(name))
            if within(statement.module, "mmpost")
        }
        & MODULES.keys()
        for name in MODULES
        if name
    }
    cycle: list[str] = []
    try:
        TopologicalSorter({name: targets - {name} for name, targets in graph.items()}).prepare()
    except CycleError as e:
        cycle = e.args[1]
    assert not cycle, " -> ".join(cycle)


def test_packages_stay_small() -> None:
    assert sorted(path.name for path in PACKAGE.glob("*.py")) == ["__init__.py", "cli.py", "errors.py", "types.py"]
    sizes: dict[str, int] = {}
    for path in MODULES.values():
        if path.name != "__init__.py":
            folder = path.parent.relative_to(PACKAGE).as_posix()
            sizes[folder] = sizes.get(folder, 0) + 1
    assert not {folder: n for folder, n in sizes.items() if n > 13 and folder.partition("/")[0] not in LINKED}


@pytest.mark.parametrize("package", sorted(ONLY_IN))
def test_each_heavy_package_has_one_home(package: str) -> None:
    homes = ONLY_IN[package]
    strays = [
        f"{MODULES[name].relative_to(ROOT)}:{statement.line}"
        for name in MODULES
        if not any(within(name, home) for home in homes)
        for statement in imports(parse(name))
        if within(statement.module, package)
    ]
    assert not strays, f"{package} may be imported only in {', '.join(homes)}; found in {', '.join(strays)}"


@pytest.mark.parametrize("place", sorted(NOT_AT_MODULE_LEVEL))
def test_light_modules_stay_light(place: str) -> None:
    heavy = NOT_AT_MODULE_LEVEL[place]
    strays = [
        f"{MODULES[name].relative_to(ROOT)}:{statement.line} imports {statement.module}"
        for name in MODULES
        if within(name, place) and (place or not name)
        for statement in imports(parse(name), typing_only=False)
        if not statement.lazy and any(within(statement.module, one) for one in heavy)
    ]
    assert not strays, "\n".join(strays)


FORBIDDEN_IN_THE_LOOP = {
    *(
        "image",
        "images",
        "picture",
        "video",
        "videos",
        "audio",
        "sound",
        "pixel",
        "pixels",
        "vision",
        "tokenizer",
        "text",
    ),
    *("grpo", "gspo", "dapo", "dpo", "ipo", "simpo", "orpo", "kto", "sft", "ppo", "rloo", "infonce", "visurf", "lora"),
    *("reward", "rewards", "advantage", "preference", "contrastive", "likelihood", "truth"),
    *("vllm", "deepspeed", "accelerate", "peft", "transformers", "qwen", "llava", "janus"),
}


def words(text: str) -> set[str]:
    """The words in names and sentences, in lower case: `DataLoader` and `data_loader` are both data and loader."""
    parted = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", text).replace("_", " ")
    return {word.lower() for word in re.findall(r"[A-Za-z][A-Za-z0-9]*", parted)}


def names(tree: ast.Module) -> str:
    """All identifiers of a module, without strings and comments."""
    attribute_of = {ast.Name: "id", ast.Attribute: "attr", ast.arg: "arg", ast.alias: "name", ast.keyword: "arg"}
    identifiers = [
        str(getattr(node, attribute_of[type(node)])) for node in ast.walk(tree) if type(node) in attribute_of
    ]
    identifiers += [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return " ".join(identifiers)


PLAIN = (
    *("training.batches", "training.context", "training.evaluation", "training.stage_checks"),
    *("training.gradient_cache", "runs.checkpoint", "runs.resume", "selection.recorder", "selection.recording"),
)


def test_the_loop_knows_no_modality_method_task_or_engine() -> None:
    tasks = {module.split(".")[1] for module in MODULES if module.startswith("tasks.")} - {"benches"}
    words_of = {
        "training.trainer": words(MODULES["training.trainer"].read_text()),  # including messages and comments
        **{name: words(names(parse(name))) - {"text"} for name in PLAIN},
    }
    forbidden = {name: sorted(these & (FORBIDDEN_IN_THE_LOOP | tasks)) for name, these in words_of.items()}
    assert not any(forbidden.values()), forbidden


OF_ONE_DOMAIN = {
    "judges": ("judges.radiology", {"radiology", "report", "reports", "finding", "findings", "green", "chest", "xray"}),
    "data.readers": ("data.worlds", {"world", "worlds", "synthetic"}),
}
"""Packages for every domain: the package of one domain above them, and the words that they must not use."""


@pytest.mark.parametrize("package", sorted(OF_ONE_DOMAIN))
def test_a_generic_package_knows_no_domain(package: str) -> None:
    domain, forbidden = OF_ONE_DOMAIN[package]
    assert LEVELS.index(domain) > LEVELS.index(package)  # what lies above may not be imported
    generic = [name for name in MODULES if within(name, package) and not within(name, domain)]
    found = {name: sorted(words(MODULES[name].read_text()) & forbidden) for name in generic}
    assert not any(found.values()), found


def test_the_packages_listed_are_the_folders_that_exist() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {
        ".".join(Path(folder).relative_to(ROOT).parts)
        for folder, _, files in os.walk(PACKAGE, followlinks=True)
        if any(file.endswith(".py") for file in files)
    }
    assert sorted(folders) == setuptools["packages"]
    assert all((ROOT / folder.replace(".", "/") / "__init__.py").exists() for folder in folders)
    assert setuptools["package-dir"] == {"mmpost": "mmpost", **{f"mmpost.{name}": name for name in LINKED}}


@pytest.mark.parametrize("name", LINKED)
def test_the_top_level_folders_are_linked_into_the_package(name: str) -> None:
    link = PACKAGE / name
    assert link.is_symlink()
    assert os.readlink(link) == f"../{name}"


def repository_files() -> list[str]:
    """Committed files, and untracked ones that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [line for line in listed.stdout.splitlines() if (ROOT / line).exists()]


def test_the_top_level_has_only_what_belongs_there() -> None:
    assert {name.partition("/")[0] for name in repository_files()} <= TOP_LEVEL


def test_no_file_names_a_machine_or_a_registry() -> None:
    slash = "/"
    hosts = ["pypi" + r"\.org", "python" + r"hosted\.org", "registry" + r"\.npmjs", "deb" + r"\.debian\.org"]
    paths = [slash + "work" + slash, slash + "root" + slash, slash + "farm" + slash, slash + "tmp" + slash]
    pattern = re.compile("|".join([*hosts, *paths]))
    wrong = []
    for name in repository_files():
        path = ROOT / name
        if path.is_symlink() or path.suffix not in {".py", ".md", ".toml", ".yaml", ".yml", ".json", ".jsonl", ""}:
            continue
        lines = path.read_text(errors="replace").splitlines()
        wrong += [f"{name}:{number}" for number, line in enumerate(lines, 1) if pattern.search(line)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_files_and_functions_are_short(name: str) -> None:
    lines = len(MODULES[name].read_text().splitlines())
    assert lines <= 400, f"{MODULES[name].relative_to(ROOT)} has {lines} lines; split it"
    for node in ast.walk(parse(name)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 60, f"{MODULES[name].relative_to(ROOT)}:{node.lineno} {node.name} has {length} lines"


def test_no_module_has_a_catch_all_name() -> None:
    drawers = {"util", "utils", "helpers", "misc", "common"}
    assert not [name for name in MODULES if drawers & set(name.split("."))]


def python(code: str, *, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=300
    )


ABSENT = """
import sys
class Hiding:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        optional = {"vllm", "deepspeed", "decord", "torchcodec", "wandb", "trackio", "open_clip"}
        hidden = name.partition(".")[0] in optional
        return None if hidden else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
import importlib
for name in NAMES:
    importlib.import_module(name)
"""


def test_everything_imports_without_the_optional_packages() -> None:
    optional = {home for package in ("vllm", "deepspeed", "lmms_eval") for home in ONLY_IN[package]}
    names = [f"mmpost.{name}".rstrip(".") for name in sorted(MODULES) if name not in optional]
    done = python(ABSENT.replace("NAMES", repr(names)))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", LINKED)
def test_a_top_level_folder_is_not_a_package_of_its_own(name: str) -> None:
    done = python(f"import {name}")
    assert done.returncode != 0
    assert "ModuleNotFoundError" in done.stderr
    assert f"import mmpost.{name}, not {name}" in done.stderr


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["list"], ["list", "visurf"], ["train", "tsak=visurf"]]
)
def test_commands_without_a_model_do_not_import_torch(arguments: list[str]) -> None:
    code = f"""
import sys
from mmpost.cli import main
try:
    main({arguments!r})
except SystemExit:
    pass
heavy = {{"torch", "transformers", "datasets", "peft", "sklearn"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = python(code)
    assert done.returncode == 0, done.stderr


def test_importing_mmpost_is_light() -> None:
    done = python(
        "import sys, mmpost; print(sorted({'torch', 'numpy', 'pydantic', 'transformers'} & set(sys.modules)))"
    )
    assert done.stdout.strip() == "[]", done.stderr
