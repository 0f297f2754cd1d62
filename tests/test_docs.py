"""The pages: what they say of parameters, commands and files is what there is."""

import re
from pathlib import Path

import pytest
import yaml

from tests.helpers import DEFAULTS, PARAMETERS_OF, ROOT, command, git

PAGES = [ROOT / name for name in git(ROOT, "ls-files", "*.md").splitlines()]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([\w-]+):[^=\n]*  ## ", MAKEFILE, re.MULTILINE))
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
LINES = {"README.md": 160, "CONTRIBUTING.md": 80}
ROOMS = (
    *("stages", "common", "data", "review", "runs", "recipes"),
    *("inference", "verify", "scaffold", "bench", "docs", "tests", "search", "spaces"),
)
MADE = (  # what the pages name and a clone does not hold until something makes it
    "data/mnist-jpg.zip",  # make new leaves this out
    "data/images.zip",
    "data/prepared",
    "models/",
    "review/report.",
    "verify/report.md",
)


def read(page: Path) -> str:
    """Return the text of a page."""
    return page.read_text(encoding="utf-8")


def rows(page: Path, header: str) -> list[list[str]]:
    """Return the cells of every row of the tables of a page that begin with a header."""
    found, inside = [], False
    for line in read(page).splitlines():
        inside = line.startswith(header) or (inside and line.startswith("|"))
        if inside and not line.startswith((header, "| ---")):
            found.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return found


def test_every_parameter_is_described_as_it_is() -> None:
    table = {row[0].strip("`"): row[1:] for row in rows(ROOT / "docs/parameters.md", "| key |")}
    assert table.keys() == DEFAULTS.keys()
    for key, (default, allowed, _, stages) in table.items():
        assert yaml.safe_load(default) == DEFAULTS[key], key
        assert stages.split(", ") == [s for s in PARAMETERS_OF if key in PIPELINE[s]["params"]], key
        for stage in stages.split(", "):
            assert PARAMETERS_OF[stage].model_fields[key].description == allowed, key


def test_every_output_is_described() -> None:
    text = read(ROOT / "docs/parameters.md")
    for stage in PIPELINE.values():
        for kind in ("outs", "metrics", "plots"):
            for out in stage.get(kind, []):
                path = next(iter(out)) if isinstance(out, dict) else out
                folders = "data/prepared/{train,validation,test}"
                is_split = Path(path).name in ("train", "validation", "test")
                assert (folders if is_split else f"`{path}`") in text, path


def test_make_targets_and_pages_know_each_other() -> None:
    text = "\n".join(map(read, PAGES))
    named = set(re.findall(r"(?:^|`|\$ | {4})make ([a-z][\w-]*)", text, re.MULTILINE))
    assert named <= TARGETS
    assert TARGETS - {"help"} <= named, "targets that no page names"
    printed = command(ROOT, "make", "--no-print-directory")
    assert {line.split()[1] for line in printed.splitlines() if line.startswith("make ")} == TARGETS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_and_links_that_a_page_names_exist(page: Path) -> None:
    text = read(page)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), link
        if anchor:
            titles = re.findall(r"^#+ (.+)$", read(target), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in anchors, link
    for name in re.findall(rf"`((?:{'|'.join(ROOMS)})/[\w./-]+)`", text):
        assert name.startswith(MADE) or (ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_are_short(page: Path) -> None:
    name, lines = str(page.relative_to(ROOT)), read(page).splitlines()
    words = [line for line in lines if not line.startswith("|")]
    assert len(words) <= LINES.get(name, 200)
    if name in LINES:
        assert len(lines) <= LINES[name]
