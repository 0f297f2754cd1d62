"""Keep the versions of packages that the stages depend on in step with the lock.

    python -m review.packages

DVC can depend on a value in a YAML file, not on a line of requirements.txt. stages/packages.yaml
holds the versions as such values. After an upgrade DVC knows by them which stages to run again.
"""

import re
from pathlib import Path

from ruamel.yaml import YAML

from common.console import InputError, run
from common.outputs import replacing

LOCK = Path("requirements.txt")
PACKAGES = Path("stages/packages.yaml")

yaml = YAML(typ="safe")  # as DVC reads it


def with_versions_of_lock(packages: str, lock: str) -> str:
    """Return the content of stages/packages.yaml with the versions of the lock.

    Parameters
    ----------
    packages : str
        The content of stages/packages.yaml: a line ``name: version`` a package.
    lock : str
        The content of requirements.txt: lines ``name==version``, among others.

    Raises
    ------
    InputError
        If the lock lacks a package.

    Examples
    --------
    >>> with_versions_of_lock("numpy: 2.0.0", "numpy==2.1.0")
    'numpy: 2.1.0'
    """
    versions = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", lock, re.MULTILINE))

    def line(match: re.Match[str]) -> str:
        name = match[1]
        if name not in versions:
            raise InputError(f"{LOCK} has no {name}, which {PACKAGES} names")
        return f"{name}: {versions[name]}"

    return re.sub(r"^([\w.-]+): .*$", line, packages, flags=re.MULTILINE)


def stages_of_other_versions(folder: Path) -> list[str]:
    """Return the stages that depend on a version that is no longer that of the lock.

    Parameters
    ----------
    folder : Path
        The root of a project.
    """
    packages = (folder / PACKAGES).read_text()
    of_lock = with_versions_of_lock(packages, (folder / LOCK).read_text())
    changed = set(of_lock.splitlines()) - set(packages.splitlines())
    names = {line.partition(":")[0] for line in changed}
    stages = yaml.load(folder / "dvc.yaml")["stages"]
    return [
        stage
        for stage, description in stages.items()
        for params in description.get("params", [])
        if isinstance(params, dict) and names & set(params.get(str(PACKAGES), []))
    ]


def main() -> None:
    """Write the versions of the lock into stages/packages.yaml."""
    content = with_versions_of_lock(PACKAGES.read_text(), LOCK.read_text())
    with replacing(PACKAGES) as new:
        new.write_text(content)


if __name__ == "__main__":
    run("packages", main)
