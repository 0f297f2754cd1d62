"""The page: board/board.html, one file that opens without a network."""

import base64
import hashlib
import json
import math
import re
import shlex
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from board.charts import charts_of
from board.scores import Section, interval_of_metrics, sections_of
from common.outputs import replacing
from review.rendering import TEMPLATES as REVIEW_TEMPLATES
from review.rendering import one_line
from review.revision import NO_SETTING
from review.significance import probability
from search.results import Result, differing

PAGE = Path("board/board.html")
TEMPLATES = Path(__file__).parent / "templates"
NOT_COMPARED = (*NO_SETTING, "evaluate_on")  # rows are of several seeds, sections of one of the two


def write_page(results: list[Result]) -> None:
    """Write the page, whole or not at all."""
    text = page(results)
    PAGE.parent.mkdir(exist_ok=True)
    with replacing(PAGE) as new:
        new.write_text(text, encoding="utf-8")


def page(results: list[Result]) -> str:
    """Return the page as HTML that needs nothing else.

    Its security policy admits its two scripts, by their hashes, and no connection.
    """
    plotly = files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")
    script = (TEMPLATES / "board.js").read_text(encoding="utf-8")
    sections = [(section, parameters_of(section)) for section in sections_of(results)]
    charts = [charts_of(section, parameters) for section, parameters in sections]
    environment = Environment(
        loader=FileSystemLoader([TEMPLATES, REVIEW_TEMPLATES]),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "one_line": one_line,
        "value": value,
        "percent": percent,
        "interval": interval,
        "revision": revision,
        "p_value": p_value,
    }
    return environment.get_template("board.html").render(
        results=results,
        sections=[(*pair, found) for pair, found in zip(sections, charts, strict=True)],
        specs=[
            {"data": chart.data, "layout": chart.layout}
            for found in charts
            for chart in found
            if chart.data
        ],
        plotly=plotly,
        script=script,
        script_hashes=f"{source_of(plotly)} {source_of(script)}",
        titles=titles([section for section, _ in sections]),
        summary=summary,
        state=state,
        made_by=made_by,
        metrics_interval=interval_of_metrics,
    )


def source_of(script: str) -> str:
    """Return the words by which a security policy admits a script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def parameters_of(section: Section) -> list[str]:
    """Return the parameters in which the settings of a section differ."""
    return [name for name in differing(section.results) if name not in NOT_COMPARED]


def titles(sections: list[Section]) -> list[str]:
    """Name the sections by their images, and number those of as many images."""
    names: list[str] = []
    seen: Counter[str] = Counter()
    for section in sections:
        number = f"{section.images:,} " if section.images else ""
        name = f"{number}{section.split} images" if section.split else "no images: not scored"
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}, set {seen[name]}")
    return names


def summary(section: Section) -> str:
    """Say which setting is the best and how many cannot be told from it."""
    best = next((setting for setting in section.settings if setting.is_best), None)
    if best is None:
        return "Nothing here can be compared: no predictions say which images were scored."
    compared = [setting for setting in section.settings if setting.p_value >= 0]
    alike = [setting for setting in compared if setting.standing != "worse"]
    seeds = f", the mean of {len(best.finished)} seeds" if len(best.finished) > 1 else ""
    text = (
        f"The best of {len(compared) + 1:,} is {one_line(best.results[0].name)}: accuracy "
        f"{percent(best.accuracy)} (95% interval {interval(best.interval)}{seeds})."
    )
    if not compared:
        return f"{text} There is nothing to compare it with."
    return f"{text} {len(alike):,} of the {len(compared):,} others cannot be told from it."


def value(found: object) -> str:
    """Write a parameter or a metric."""
    if isinstance(found, float):
        return f"{found:.4g}"
    return one_line(found if isinstance(found, str) else json.dumps(found, default=str))


def percent(share: float | None) -> str:
    """Write an accuracy; "-" if there is none."""
    return "-" if share is None else f"{share:.2%}"


def interval(ends: tuple[float, float] | None) -> str:
    """Write an interval of accuracies; nothing if it is not known."""
    return "" if ends is None else f"{100 * ends[0]:.2f} to {100 * ends[1]:.2f}"


def p_value(found: float) -> str:
    """Write a p value; nothing if there is none."""
    return "" if math.isnan(found) else probability(found)


def state(result: Result) -> str:
    """Say what became of a run."""
    if result.state == "finished":
        return "finished" if result.accuracy is not None else "not scored"
    epochs = 0 if result.curve is None else len(result.curve)
    return f"{result.state} after epoch {epochs}" if epochs else result.state


def made_by(result: Result) -> str:
    """Say what made a result: a trial of a search, an experiment, or a commit."""
    found = result.trailers
    if "Search" not in found:
        return "experiment" if result.is_experiment else "commit"
    trial = f"trial {found['Trial']}" if "Trial" in found else ""
    role = found.get("Role", "trial")
    words = {"trial": trial, "winner": f"winner, {trial}", "default": "default settings"}
    return one_line(f"{found['Search']}: {words.get(role, role)}")


def revision(result: Result) -> str:
    """Return what `make review` calls a result, as a word of the shell.

    A name with other signs than these means something to make or to the shell.
    """
    name: Any = result.name if re.fullmatch(r"[\w./+-]+", result.name, re.ASCII) else result.commit
    return shlex.quote(name)
