"""The rooms: each imports only what its room may, and a stage stays short."""

import ast
from pathlib import Path

import pytest

from tests.helpers import ROOT, STAGES, git

MAY_IMPORT = {
    "stages": {"common"},
    "common": set(),
    "data": {"common"},  # make new leaves this out
    "review": {"common"},
    "runs": {"common", "review"},
    "search": {"common", "review", "runs", "stages"},
    "board": {"common", "review", "search"},
    "verify": {"common", "review"},
    "inference": {"common"},
    "scaffold": {"common", "review"},  # make new leaves this out
    "bench": {"stages", "common", "inference", "review", "search"},  # make new leaves this out
}
MAY_IMPORT["tests"] = set(MAY_IMPORT)
FILES = [
    name
    for name in git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    if name.endswith(".py") and (ROOT / name).exists()
]
STAGE_FILES = {f"stages/{stage}.py" for stage in STAGES}
STAGE_LINES = 250  # what can be read in one sitting


def imported_modules(name: str) -> set[str]:
    """Return the modules that a file imports, wherever in it.

    Of `from a import b` both `a` and `a.b`, which may be a module.
    """
    modules = set()
    for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: imports are written from the root"
            modules |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return modules


@pytest.mark.parametrize("name", FILES)
def test_a_file_imports_what_its_room_may(name: str) -> None:
    room = Path(name).parts[0]
    assert room in MAY_IMPORT, "this folder holds no code"
    modules = imported_modules(name)
    rooms = {module.partition(".")[0] for module in modules} & MAY_IMPORT.keys()
    assert rooms - {room} <= MAY_IMPORT[room]
    if name in STAGE_FILES:
        assert "stages" not in rooms, "no stage imports a stage"
    if room == "tests":
        tests = {module for module in modules if module.startswith(("tests.test_", "tests.conf"))}
        assert not tests, "what several tests need belongs into tests/helpers.py"


def test_stages_holds_the_stages_and_nothing_else() -> None:
    files = {name for name in FILES if name.startswith("stages/")}
    assert files == STAGE_FILES | {"stages/__init__.py"}


@pytest.mark.parametrize("name", sorted(STAGE_FILES))
def test_a_stage_is_read_in_one_sitting(name: str) -> None:
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= STAGE_LINES
