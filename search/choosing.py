"""Which experiment is the best, and what `make best` does with it."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from common.console import InputError, deferring_interrupts, run_program
from common.outputs import replacing
from common.params import PARAMS
from review.git import git
from review.revision import NO_SETTING, SEED, Revision, resolve
from review.tables import BOUNDS, HIGHER_IS_BETTER, LOWER_IS_BETTER
from runs.committed import check_lock, committed_params
from runs.experiments import changed_params, check_identity, free_name
from runs.recipe import FOLDER, as_changes, parse_mapping
from search.results import CODE, Result, read_objects, read_results, settings_of

Params = Mapping[str, object]
HIGHEST = (*HIGHER_IS_BETTER, *BOUNDS)
LOWEST = (*LOWER_IS_BETTER, "parameters", "adds", "seconds", "bytes")
SHORT = {"accuracy": "validation_accuracy", "loss": "validation_loss"}  # as `make search` has them
EVALUATE_ON, TEST_IMAGES = "evaluate_on", "test_images"
IMAGES = ("dataset", "classes", "data_seed", "bad_images")  # they choose the images of all splits
EVALUATE = Path("metrics/evaluate.json")
DIGITS = 6  # of a mean: metrics/train.json has 0.9589999914 for 0.959


@dataclass(frozen=True)
class Measure:
    """A metric, and whether more of it is better."""

    name: str
    more_is_better: bool

    @property
    def images(self) -> tuple[str, ...]:
        """The parameters that choose the images of which it tells."""
        named = [split for split in ("validation", "test") if self.name.startswith(f"{split}_")]
        if named:
            return (*IMAGES, *(f"{split}_images" for split in named))
        return (*IMAGES, "validation_images", TEST_IMAGES, EVALUATE_ON)

    def of_setting(self, setting: list[Result]) -> float:
        """Return the mean over the results of a setting."""
        return round(fmean(result.metrics[self.name] for result in setting), DIGITS)


def read_measure(text: str) -> Measure:
    """Return what the user means: a metric by its name, with ``lowest:`` or ``highest:`` before it.

    Raises
    ------
    InputError
        If neither says whether more is better.

    Examples
    --------
    >>> read_measure("test_loss"), read_measure("highest:depth")
    (Measure(name='test_loss', more_is_better=False), Measure(name='depth', more_is_better=True))
    """
    end, colon, name = text.partition(":")
    if colon and end in ("lowest", "highest"):
        return Measure(name, end == "highest")
    name = SHORT.get(text, text)
    if not name.endswith((*HIGHEST, *LOWEST)):
        raise InputError(
            f"METRIC is {text!r}, whose name does not tell whether more is better; write "
            f"METRIC=lowest:{text} or METRIC=highest:{text}"
        )
    return Measure(name, name.endswith(HIGHEST))


def of_search(finished: list[Result], name: str) -> list[Result]:
    """Return the trials of a search; what else it ran only repeats a setting with fresh seeds.

    Raises
    ------
    InputError
        If there is none.
    """
    trials = [result for result in finished if result.trailers.get("Role") == "trial"]
    own = [result for result in trials if result.trailers.get("Search") == name]
    if not own:
        names = ", ".join(sorted({result.trailers.get("Search", "") for result in trials}))
        there = f"searches that have some are {names}" if names else "no search has any"
        raise InputError(f"no search named {name!r} has a trial that ran to its end; {there}")
    return own


def settings_in_question(candidates: list[Result], measure: Measure) -> list[list[Result]]:
    """Return the results that have a metric, those of a setting together.

    Raises
    ------
    InputError
        If none has it.
    """
    settings = settings_of([result for result in candidates if measure.name in result.metrics])
    if not settings:
        found = ", ".join(sorted({name for result in candidates for name in result.metrics}))
        raise InputError(
            f"of {len(candidates)} experiments none has the metric {measure.name}"
            + (f"; they have {found}" if found else "")
        )
    return settings


def with_all_seeds(settings: list[list[Result]]) -> list[list[Result]]:
    """Return the settings of a search that were run with all its seeds.

    The others were interrupted, or failed with one of them.
    """
    seeds = [len({result.seed for result in setting}) for setting in settings]
    return [setting for setting, n in zip(settings, seeds, strict=True) if n == max(seeds)]


def are_judged_alike(result: Result, committed: Params, measure: Measure) -> bool:
    """Return whether a metric tells of the images that the committed parameters choose."""
    return all(result.params.get(key) == committed.get(key) for key in measure.images)


@dataclass(frozen=True)
class Choice:
    """The best experiment.

    Attributes
    ----------
    result : Result
        It, with the lowest seed of its setting.
    setting : list of Result
        All that ran with its setting.
    measure : Measure
        By what it is the best.
    reason : str
        The same in words, with among how many.
    """

    result: Result
    setting: list[Result]
    measure: Measure
    reason: str


def choose(results: list[Result], search: str, metric: str, committed: Params) -> Choice:
    """Return the best experiment of a search, or of all; of equals, the first."""
    finished = [r for r in results if r.is_experiment and r.state == "finished"]
    if search:
        candidates = of_search(finished, search)
        measure = read_measure(metric or candidates[-1].trailers.get("Metric", "accuracy"))
        settings = with_all_seeds(settings_in_question(candidates, measure))
        where = f"the search {search}"
    else:
        measure = read_measure(metric or "accuracy")
        # A single validation image, which some recipes keep, is soon all right.
        candidates = [r for r in finished if are_judged_alike(r, committed, measure)]
        if len(finished) > len(candidates):
            others = len(finished) - len(candidates)
            print(f"best: {others} of {len(finished)} experiments were judged on other images")
        settings = settings_in_question(candidates, measure)
        where = "all experiments"
    sign = 1 if measure.more_is_better else -1
    setting = max(settings, key=lambda setting: sign * measure.of_setting(setting))
    result = min(setting, key=lambda result: float(str(result.seed)) if result.seed else 0)
    reason = f"the best of {len(settings)} settings of {where} by {measure.name}"
    return Choice(result, setting, measure, reason)


def differing(committed: Params, params: Params) -> dict[str, object]:
    """Return the parameters that are not as committed."""
    return {key: v for key, v in params.items() if key not in committed or committed[key] != v}


def print_choice(choice: Choice, results: list[Result], committed: Params, code: str) -> None:
    """Say which experiment is the best, by how much, and what it changes."""
    measure, best = choice.measure, choice.result
    value = f"{measure.of_setting(choice.setting):,.6g}"
    seeds = f", the mean of {len(choice.setting)} runs" if len(choice.setting) > 1 else ""
    print(f"best: {best.name} is {choice.reason}: {value}{seeds}")
    if are_judged_alike(best, committed, measure):
        for result in results:
            as_committed = result.params == committed and result.code == code
            if as_committed and measure.name in result.metrics:
                print(f"best: the committed settings have {result.metrics[measure.name]:,.6g}")
                break
    if measure.name.startswith("test_") or measure.images[-1] == EVALUATE_ON == best.scored:
        print("best: it was chosen by the test images, whose accuracy flatters what they chose")
    for key, new in differing(committed, best.params).items():
        if key not in (SEED, EVALUATE_ON):
            old = json.dumps(committed[key]) if key in committed else "not there"
            print(f"best:   {key}: {old} -> {json.dumps(new)}")
    if best.code != code:
        print("best: it ran with other code than is committed")


def recipe_of(committed: Params, params: Params) -> dict[str, object]:
    """Return the parameters of a recipe: as those there are, it is judged on all test images."""
    values = differing(committed, {**params, TEST_IMAGES: None})
    return {key: v for key, v in values.items() if key not in (*NO_SETTING, EVALUATE_ON)}


def check_recipe(name: str, values: dict[str, object]) -> Path:
    """Return the path of a recipe that may be written.

    Raises
    ------
    InputError
        If its name is none of a file, or a recipe of that name has other parameters.
    """
    if not re.fullmatch(r"\w[\w.-]{0,49}", name, re.ASCII):
        raise InputError(
            f"RECIPE is {name!r}; it must be a name of at most 50 letters, digits, '.', '-' and "
            "'_', for a file in recipes/"
        )
    path = FOLDER / f"{name}.yaml"
    shown = f"recipes/{path.name}"
    if path.exists() and parse_mapping(path.read_bytes(), shown) != values:
        raise InputError(f"{shown} is there, with other parameters; give RECIPE another name")
    return path


def write_recipe(path: Path, choice: Choice, values: dict[str, object]) -> None:
    """Write a recipe, unless it is there."""
    if not path.exists():
        lines = [f"{key}: {json.dumps(value)}\n" for key, value in values.items()]
        with replacing(path) as new:
            new.write_text(f"# {choice.result.name}: {choice.reason}.\n{''.join(lines)}")
    print(f"best: recipes/{path.name} has it for all test images: make recipe NAME={path.stem}")


def apply(result: Result) -> None:
    """Put the files of an experiment that started from HEAD into the workspace.

    Raises
    ------
    InputError
        If DVC cannot. That it lacks data or a model, which the next run makes again, is no reason.
    """
    done = run_program(["dvc", "exp", "apply", "--quiet", result.commit])
    if done.returncode != 0:
        if parse_mapping(PARAMS.read_bytes(), str(PARAMS)) != result.params:
            raise InputError(f"dvc could not apply {result.name}; it says why above")
        print("best: DVC's cache lacks a part of it, which is made again", flush=True)


def run_on_test_images(best: Result, head: str, changes: list[str]) -> str:
    """Bring the best settings into the workspace and run them on the test images.

    Of an experiment that started from HEAD, the files are applied; DVC finds the model by them,
    and only evaluates. The files of any other would take back what was committed since: the
    committed code runs its parameters, and DVC's cache has the model if the code is the same.

    Returns
    -------
    str
        The name of the new experiment.

    Raises
    ------
    InputError
        If DVC fails.
    """
    if best.parent == head:
        apply(best)
        changes = []
    check_identity()
    name = free_name(f"best-{best.name}")
    options = [f"-S{change}" for change in (*changes, f"{EVALUATE_ON}=test")]
    if run_program(["dvc", "exp", "run", "--name", name, *options]).returncode != 0:
        raise InputError("dvc failed; it says why above")
    return name


def described(metrics: Mapping[str, Any]) -> str:
    """Return the accuracy on the test images and its interval, of metrics/evaluate.json."""
    accuracy, low, high = (metrics[f"test_accuracy{end}"] for end in ("", "_low", "_high"))
    return (
        f"test accuracy {accuracy:.4f} (95% interval {low:.4f} to {high:.4f}), "
        f"{metrics['errors']} errors"
    )


@contextmanager
def undoing() -> Iterator[None]:
    """Put back all as committed, as it was before, if the block fails or is interrupted."""
    try:
        yield
    except BaseException:
        with deferring_interrupts():
            git("restore", "--source=HEAD", "--staged", "--worktree", "--", ".")
            subprocess.run(["dvc", "checkout", "--quiet", "--force"], capture_output=True)
        print("best: all is again as it was committed", file=sys.stderr)
        raise


def apply_best(search: str, metric: str, recipe_name: str) -> None:
    """Choose the best, say what it changes, run it on the test images, and write the recipe.

    Parameters
    ----------
    search : str
        The name of a search; "" for all experiments.
    metric : str
        As the user wrote it; "" for that by which the search judges.
    recipe_name : str
        Of the file in recipes/ that gets the parameters; "" for none.
    """
    committed = parse_mapping(committed_params(), f"{PARAMS} of HEAD")
    head, results = resolve("HEAD"), read_results()
    code = " ".join(held.name for held in read_objects(f"HEAD:./{path}" for path in CODE))

    choice = choose(results, search, metric, committed)
    best = choice.result
    Revision(best.name, best.commit).check_params()
    recipe = recipe_of(committed, best.params)
    path = check_recipe(recipe_name, recipe) if recipe_name else None
    changes = as_changes(differing(committed, best.params))
    if best.parent != head.commit:
        changed_params(best.name, changes)
    check_lock(head)
    print_choice(choice, results, committed, code)

    others = set(differing(committed, best.params)) - {*NO_SETTING, EVALUATE_ON}
    if not others and best.code == code:
        print("best: these are the committed settings: nothing is changed")
        return

    # Run before with these settings: an experiment of the same start is applied as it is.
    wanted = committed | best.params | {EVALUATE_ON: "test"}
    made_by = best.code if best.parent == head.commit else code
    same = (r for r in results if r.parent == head.commit and r.is_experiment)
    tested = [r for r in same if r.params == wanted and r.code == made_by and r.scored == "test"]
    with undoing():
        if tested:
            name = tested[0].name
            print(f"best: {name} ran these settings on the test images: they are not run again")
            apply(tested[0])
        else:
            name = run_on_test_images(best, head.commit, changes)
        metrics = parse_mapping(EVALUATE.read_bytes(), str(EVALUATE))
    print(f"best: {name}: {described(metrics)}")
    if path:
        write_recipe(path, choice, recipe)
    print(
        "best: your folder has these settings and results, which `git diff HEAD` shows\n"
        f"best: to compare them:  make review REV={name}\n"
        f"best: to keep them:     git add . && git commit -m 'Keep {name}'\n"
        "best: to undo them:     git reset --hard && dvc checkout"
    )
    if not path:
        print("best: to have them as a recipe, undo them, then: make best RECIPE=a-name-of-yours")
