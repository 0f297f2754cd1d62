"""Make a committed result again, from the data, and say whether it holds.

    python -m verify [--rev REVISION]

It works in a temporary clone, writes verify/report.md, and ends with exit status 0 if the result
is verified, 1 if it is not, and 3 if that could not be told.
"""

import argparse
import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from dvc.exceptions import DvcException
from dvc.utils.serialize import modify_yaml

from common.console import InputError, run
from common.params import PARAMS
from common.processors import usable_processors
from review.current import missing_results, unmade_results
from review.packages import PACKAGES
from review.predictions import PREDICTIONS_FILE
from review.revision import PROVENANCE, SEED, THREADS, Revision, resolve
from review.significance import same_images
from verify.committed import CURVES, contradictions, read_predictions
from verify.equivalence import WIDEST, changed_images, likeness, margin_over_seeds
from verify.findings import (
    MAY_DIFFER,
    STATUS,
    Findings,
    Margin,
    Output,
    compare_predictions,
    differing_provenance,
)
from verify.numbers import Columns, Runs, columns_of
from verify.remake import CannotTellError, Workshop, stage_that_starts, workshop
from verify.report import PAGE, print_findings, row, write_page

LAST = "evaluate"  # the stage that reads the model
DRAWN = ("plots/loss.png", "plots/accuracy.png")  # by it, from the committed curves


def say(text: str) -> None:
    """Tell whoever waits how far it is; what is found goes to the other stream."""
    print(text, file=sys.stderr, flush=True)


def other_packages(revision: Revision) -> dict[str, tuple[str, str]]:
    """Return the packages that a revision names and that are here in another version, or not."""
    found = {}
    for name, version in revision.mapping(str(PACKAGES)).items():
        try:
            here = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            here = "none"
        if here != str(version):
            found[name] = (str(version), here)
    return found


def margin_of(revision: Revision) -> Margin:
    """Return the margin: from the seeds that were run, else two points."""
    accuracies = revision.accuracies_by_seed()
    value = margin_over_seeds(list(accuracies.values()))
    if value is None:
        return Margin(WIDEST, "no other seeds of it were run here")
    return Margin(value, f"from the spread over the seeds {', '.join(map(str, accuracies))}")


def run_stages(made: Workshop, names: list[str]) -> Iterator[str]:
    """Run stages; say what they print, and yield each stage when it has ended."""
    running = ""
    for line in made.run(names):
        begun = stage_that_starts(line)
        if begun:
            if running:
                yield running
            running = begun
            say(f"verify: running {running}")
        elif line.startswith(f"{running}: "):
            say(f"  {line}")
    if running:
        yield running


def remake(made: Workshop, findings: Findings) -> None:
    """Run all stages again and compare each output, as soon as it is there.

    Raises
    ------
    CannotTellError
        If one fails, or does not run.
    """
    committed = made.locked()
    left = dict.fromkeys(made.stages)
    for stage in run_stages(made, made.stages):
        left.pop(stage, None)
        here = made.locked()[stage]
        for path in dict.fromkeys([*committed[stage], *here]):
            output = Output(stage, path, committed[stage].get(path, ""), here.get(path, ""))
            findings.outputs.append(output)
            say(row(output))
    if left or not made.stages:
        raise CannotTellError(f"DVC did not run {', '.join(left) or 'any stage'}")


def predictions_in(folder: Path) -> pd.DataFrame:
    """Return the predictions that were made in a clone."""
    text = {"image": str, "actual": str, "predicted": str}
    return pd.read_csv(folder / PREDICTIONS_FILE, dtype=text, keep_default_na=False)


def predictions_with(made: Workshop, revision: Revision, **changes: int) -> pd.DataFrame:
    """Run the stages again that the seed changes, with other parameters."""
    with modify_yaml(made.folder / PARAMS) as values:
        values.update(changes)
    seeded = [
        name
        for name in made.stages
        if any(SEED in values for values in revision.stages[name].get("params", {}).values())
    ]
    for _ in run_stages(made, made.stages[made.stages.index(seeded[0]) :]):
        pass
    return predictions_in(made.folder)


def try_model(made: Workshop, committed: pd.DataFrame, findings: Findings) -> list[str]:
    """Find out whether the committed model, if it can be had, says what is committed.

    Returns
    -------
    list of str
        The pictures that are not drawn from the committed curves.
    """
    say("verify: bytes differ; does the committed model, if it can be had, say what is committed?")
    if not made.bring_committed(LAST):
        return []
    for _ in run_stages(made, [LAST]):
        pass
    matched = same_images(committed, predictions_in(made.folder))
    findings.changed_images = len(committed) if matched is None else changed_images(matched)
    drawn = made.locked()[LAST]
    return [
        f"{output.path} is not what {LAST} draws from the committed {CURVES}"
        for output in findings.outputs
        if output.path in DRAWN and output.committed != drawn.get(output.path)
    ]


def compare(made: Workshop, revision: Revision, findings: Findings) -> None:
    """Find out whether a result of other bytes is its model's own, of its seed, and as good."""
    committed = read_predictions(revision)
    if committed is None:
        return
    paths = [output.path for output in findings.differing if output.stage in MAY_DIFFER]

    def numbers_here() -> Columns:
        return columns_of(paths, lambda path: read_if_there(made.folder / path))

    here, numbers = predictions_in(made.folder), numbers_here()
    pictures = try_model(made, committed, findings)
    found = compare_predictions(committed, here, margin_of(revision))
    findings.equivalence = found
    if found is None or findings.changed_images:
        return
    numbers_of_other_seed: Columns = {}
    if revision.seed is not None:
        other_seed = revision.seed ^ 1  # 1 more or less: more than the largest is none
        say(f"verify: how alike is a run of another seed, {other_seed}?")
        other = predictions_with(made, revision, seed=other_seed)
        numbers_of_other_seed = numbers_here()
        found.likeness_of_other_seed = likeness(here["confidence"], other["confidence"])
    params = revision.mapping(str(PARAMS))
    runs = Runs(
        committed=columns_of(paths, revision.read),
        here=numbers,
        other_seed=numbers_of_other_seed,
        images=revision.mapping("metrics/load.json"),
        may_stop_early=params.get("patience") is not None,
    )
    findings.mismatches = [*runs.mismatches(), *pictures]
    threads = params.get(THREADS, 0)
    if threads is None:  # as many as there are cores
        threads = usable_processors()
    if not found.is_like(found.likeness) and revision.seed is not None and threads != 0:
        say("verify: is a run of this seed with another number of threads alike?")
        again = predictions_with(
            made, revision, seed=revision.seed, threads=2 if threads == 1 else 1
        )
        found.likeness_of_same_seed = likeness(here["confidence"], again["confidence"])


def read_if_there(path: Path) -> bytes | None:
    """Return the content of a file; None if there is none."""
    return path.read_bytes() if path.is_file() else None


def verify(revision: Revision) -> Findings:
    """Find out whether the result of a revision holds."""
    findings = Findings(packages=other_packages(revision))
    say(f"verify: {revision.name} ({revision.commit[:10]}): reading what is committed")
    try:
        with workshop(revision) as made:
            findings.unmade += unmade_results(made.folder)
            findings.contradictions += made.contradictions
            for path in missing_results(made.folder):
                findings.contradictions.append(f"dvc.yaml declares {path}, which is not committed")
            findings.contradictions += contradictions(revision)
            if findings.unmade or findings.contradictions:
                return findings
            remake(made, findings)
            findings.provenance = differing_provenance(
                revision.read(PROVENANCE), read_if_there(made.folder / PROVENANCE)
            )
            if findings.asks_for_equivalence:
                compare(made, revision, findings)
    except (CannotTellError, DvcException) as error:
        findings.obstacle = str(error)
    return findings


def main() -> int:
    """Verify, print what was found, and write the page; return the exit status."""
    parser = argparse.ArgumentParser(prog="make verify", description=__doc__.splitlines()[0])
    parser.add_argument("--rev", default="", help="default: HEAD")
    name = parser.parse_args().rev or "HEAD"
    try:
        if not Path("dvc.yaml").is_file():
            raise InputError("there is no dvc.yaml here; run from the root of the repository")
        revision = resolve(name)
        findings = verify(revision)
    except (InputError, OSError) as error:
        say(f"verify: error: {error}")
        return STATUS["Could not tell"]
    print_findings(revision, findings)
    write_page(revision, findings)
    print(f"verify: the whole of it is in {PAGE}")
    return STATUS[findings.verdict()[0]]


if __name__ == "__main__":
    run("verify", main)
