"""What dvc.yaml declares is what the stages read and write, and as it was when they began."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common import declarations
from review.packages import with_versions_of_lock
from tests.helpers import ENVIRONMENT, ROOT, write_params, yaml

# Runs a stage as `python -m` does, and writes down every file it opens and renames.
WATCHED = """
import json, os, runpy, sys
stage, log = sys.argv[1], os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
root = os.getcwd() + os.sep
writing = os.O_WRONLY | os.O_RDWR
def hook(event, args):
    if event == "open":
        path, _, flags = args
        kind = "write" if flags & writing else "read"
    elif event in ("os.rename", "os.remove", "os.mkdir", "os.truncate", "os.link", "os.symlink"):
        path, kind = args[1 if event in ("os.rename", "os.link", "os.symlink") else 0], "write"
    else:
        return
    if not isinstance(path, (str, bytes, os.PathLike)):
        return
    path = os.path.abspath(os.fsdecode(path))
    if path.startswith(root):
        os.write(log, (json.dumps([kind, path[len(root):]]) + "\\n").encode())
sys.addaudithook(hook)
sys.argv[:] = [sys.argv[0]]
sys.path.insert(0, os.getcwd())
runpy.run_module(f"stages.{stage}", run_name="__main__", alter_sys=True)
"""
# What a module imports for another stage's sake, or only names: it decides nothing here.
IMPORTED_FOR_OTHERS = {
    "load": {"pandas", "seaborn"},
    "define": {"numpy"},
    "train": set(),
    "evaluate": set(),
}
CHECKPOINT = "models/checkpoint.npz"  # no output: train alone knows it, and removes it


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> Path:
    """Copy what the stages need, and the data set beside it."""
    folder = tmp_path_factory.mktemp("copy")
    for room in ("stages", "common"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pyc*"))
    for name in ("dvc.yaml", "README.md"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(dataset, folder / "digits")
    write_params(folder, dataset="digits")
    return folder


def files(folder: Path) -> dict[str, int]:
    """Return the time of the last change of each file."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file()
    }


def undeclared(folder: Path, stage: str) -> set[tuple[str, str]]:
    """Run a stage; return what it read and wrote that dvc.yaml does not declare for it."""
    before = files(folder)
    log = folder.parent / f"{stage}.log"
    log.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-B", "-c", WATCHED, stage, str(log)],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    events = {tuple(json.loads(line)) for line in log.read_text().splitlines()}
    # Native code (HDF5) writes without Python's knowledge: what changed on disk counts too.
    events |= {("write", name) for name, time in files(folder).items() if before.get(name) != time}
    declared = yaml.load(folder / "dvc.yaml")["stages"][stage]
    outs = [
        next(iter(out)) if isinstance(out, dict) else out
        for kind in ("outs", "metrics", "plots")
        for out in declared.get(kind, [])
    ]
    deps = [dep.replace("${dataset}", "digits") for dep in declared["deps"]]
    # dvc.yaml itself decides no output: the keys of params.yaml are compared with its own.
    admitted = {"write": outs, "read": [*deps, *outs, "params.yaml", "dvc.yaml"]}

    def is_declared(kind: str, name: str) -> bool:
        name = re.sub(r"\.(new|earlier)\.\d+\.partial", "", name, count=1)
        below = any(name == one or name.startswith(f"{one}/") for one in admitted[kind])
        parent = kind == "write" and any(one.startswith(f"{name}/") for one in outs)
        return below or parent or (stage == "train" and name == CHECKPOINT)

    if stage == "evaluate":
        judged, other = "test", "validation"
        if yaml.load(folder / "params.yaml")["evaluate_on"] == "validation":
            judged, other = other, judged
        assert ("read", f"data/prepared/{judged}/images.npy") in events
        assert not any(name.startswith(f"data/prepared/{other}") for _, name in events)
    assert any(kind == "read" for kind, _ in events)
    assert any(kind == "write" for kind, _ in events)
    if stage == "train":
        assert not any(name.startswith("data/prepared/test") for _, name in events)
    # The import system looks for compiled modules beside the declared ones.
    events = {(kind, name) for kind, name in events if "__pycache__" not in name}
    return {(kind, name) for kind, name in events if not is_declared(kind, name)}


@pytest.fixture(scope="module")
def audited(copy: Path) -> dict[str, set[tuple[str, str]]]:
    """Run the stages; return what each read and wrote that is not declared for it."""
    return {stage: undeclared(copy, stage) for stage in ("load", "define", "train", "evaluate")}


@pytest.mark.slow
def test_stages_read_and_write_what_is_declared(audited: dict[str, set[tuple[str, str]]]) -> None:
    assert {stage: found for stage, found in audited.items() if found} == {}


@pytest.mark.slow
@pytest.mark.usefixtures("audited")
def test_test_images_stay_closed_where_validation_images_judge(copy: Path) -> None:
    write_params(copy, dataset="digits", evaluate_on="validation")
    assert undeclared(copy, "evaluate") == set()  # checks which split is opened, too
    metrics = json.loads((copy / "metrics/evaluate.json").read_text())
    training = json.loads((copy / "metrics/train.json").read_text())
    assert metrics["validation_accuracy"] == pytest.approx(training["validation_accuracy"])
    assert not any(name.startswith("test_") for name in metrics)
    predictions = (copy / "plots/predictions.csv").read_text().splitlines()
    assert len(predictions) == 101
    assert all(line.endswith(",validation") for line in predictions[1:])
    write_params(copy, dataset="digits")


def test_the_packages_of_each_stage_are_declared() -> None:
    """Each package that decides what is written, with the version of the lock."""
    packages = yaml.load(ROOT / "stages/packages.yaml")
    content = (ROOT / "stages/packages.yaml").read_text()
    assert with_versions_of_lock(content, (ROOT / "requirements.txt").read_text()) == content
    package_of = {"cv2": "opencv-python-headless", "PIL": "pillow", "sklearn": "scikit-learn"}
    for stage, description in yaml.load(ROOT / "dvc.yaml")["stages"].items():
        modules = [name for name in description["deps"] if name.endswith(".py")]
        code = "".join((ROOT / name).read_text() for name in modules)
        imported = set(re.findall(r"^\s*(?:import|from) (\w+)", code, re.MULTILINE))
        named = [params for params in description["params"] if isinstance(params, dict)]
        declared = set(named[0]["stages/packages.yaml"])
        needed = {package_of.get(name, name) for name in imported} & packages.keys()
        assert needed - declared <= IMPORTED_FOR_OTHERS[stage], stage
        assert declared <= needed, stage


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "line", "event"),
    [
        ("stages/load.py", "Path('params.yaml.lock').touch()", ("write", "params.yaml.lock")),
        ("common/datasets.py", "Path('README.md').read_text()", ("read", "README.md")),
        ("stages/load.py", "import common.augmentation", ("read", "common/augmentation.py")),
    ],
)
def test_a_planted_violation_is_found(
    copy: Path, tmp_path: Path, module: str, line: str, event: tuple[str, str]
) -> None:
    planted = shutil.copytree(copy, tmp_path / "planted")
    path = planted / module
    last_import = "from common.console import InputError"
    before, found, after = path.read_text().partition(last_import)
    assert found
    rest_of_line, _, after = after.partition("\n")
    path.write_text(f"{before}{found}{rest_of_line}\nfrom pathlib import Path\n{line}\n{after}")
    assert event in undeclared(planted, "load")


@pytest.mark.slow
def test_backend_is_imported_without_what_keras_does_not_need() -> None:
    code = (
        "import common.backend, sys; "
        "assert not {'pandas', 'sklearn', 'matplotlib', 'cv2'} & set(sys.modules); "
        "import pandas, sklearn, matplotlib"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_load_imports_no_tensorflow() -> None:
    code = "import stages.load, sys; assert not {'tensorflow', 'keras'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=ENVIRONMENT, check=True)


PIPELINE = """
stages:
  load:
    cmd: python -m stages.load
    deps: ["${dataset}", link, code.py]
    params: [seed, names, {versions.yaml: [numpy]}]
    outs: [out]
"""
NOTED = "seed: 1\ndataset: images\nnames: [a]\nother: 3\n"


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Begin a stage in a folder that holds what is declared for it; return the folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(declarations, "begun", None)
    (tmp_path / "images/cat").mkdir(parents=True)
    for name in ("images/cat/1.png", "images/cat/2.png", "code.py", "far.txt"):
        Path(name).write_text("as it was")
    Path("link").symlink_to("far.txt")
    Path("dvc.yaml").write_text(PIPELINE)
    Path("params.yaml").write_text(NOTED)
    Path("versions.yaml").write_text("numpy: 1\nkeras: 1\n")
    declarations.begin("../dvc.yaml:load", "stages.load")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "content", "said"),
    [
        ("params.yaml", NOTED.replace("1", "2"), ["seed in params.yaml (it was 1, and is 2)"]),
        ("params.yaml", "[", ["params.yaml"]),
        ("params.yaml", None, ["params.yaml"]),
        ("params.yaml", NOTED.replace("3", "4") + "# a word\n", []),
        ("versions.yaml", "numpy: 2\n", ["numpy in versions.yaml (it was 1, and is 2)"]),
        ("versions.yaml", "numpy: 1\nkeras: 2\n", []),
        ("code.py", "another", ["code.py"]),
        ("code.py", "as it was", []),
        ("far.txt", "another", ["link"]),
        ("images/cat/1.png", "another", ["images/cat/1.png"]),
        ("images/cat/3.png", "new", ["images/cat/3.png"]),
        ("images/cat/2.png", None, ["images/cat/2.png"]),
        ("images/cat/.DS_Store", "what a file manager leaves", []),
        ("out", "an output", []),
    ],
)
def test_what_is_changed_after_a_stage_began_is_named(
    begun: Path, path: str, content: str | None, said: list[str]
) -> None:
    assert declarations.changes() == []
    if content is None:
        (begun / path).unlink()
    else:
        (begun / path).write_text(content)
    assert declarations.changes() == said


def test_a_stage_made_from_a_template_says_that_it_is_not_watched(
    begun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (begun / "dvc.yaml").write_text(
        "stages: {load: {matrix: {n: [1]}, cmd: 'true', deps: ['${item.n}', code.py]}}"
    )
    declarations.begin("load@1", "stages.load")
    assert capsys.readouterr().out.endswith("template: changes meanwhile are not seen\n")
    (begun / "code.py").write_text("another")
    assert declarations.changes() == []
