"""Review a revision: review/report.md and review/report.html, from what Git holds.

    python -m review [--base REVISION] [--rev REVISION]

Nothing is pulled, nothing but the two files is written.
"""

import argparse
import base64
import hashlib
import re
from pathlib import Path

import numpy as np
import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from review.report import points, report
from review.revision import default_base, resolve
from stages.console import InputError, run
from stages.outputs import replacing

FOLDER = Path("review")
TEMPLATES = Path(__file__).parent / "templates"
COMMENT_LIMIT = 65_536  # characters that GitHub takes in a comment
LONGEST = 80  # characters of a name or a value in a table
JOINERS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"
METHODS = (
    "Same test images: exact McNemar test (McNemar, Psychometrika 12, 1947), paired t interval of "
    "the difference (Agresti, Categorical Data Analysis). Different test images: chi-squared test "
    "of two proportions, Welch's interval. Several seeds: Welch's t test (Biometrika 34, 1947). "
    "Intervals at 95%; an improvement or a regression where p < 0.05. Computed with SciPy."
)
# What each table and list of the comment shows at most, so that it fits; HTML shows all.
CAPS = {"ROWS": 40, "MOVED": 5, "POINTS": 100, "IMAGES": 12}


def shown(value: object, longest: int = LONGEST) -> str:
    """Return a text of one printable line, cut in the middle where it is too long."""
    # Joiners hold emoji, Persian and Indian letters together; Python does not call them printable.
    text = "".join(
        c if c.isprintable() or c in JOINERS else "\N{REPLACEMENT CHARACTER}" for c in str(value)
    )
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[-half:]}"


def markdown(value: object, longest: int = LONGEST) -> str:
    """Return a text that Markdown and HTML take for text: no markup, link, mention or issue."""
    return re.sub(
        r"[^\w ./,:;=%+()→…-]|\b_|_\b|:(?=//)|(?<=www)\.",
        lambda found: "".join(f"&#{ord(c)};" for c in found.group()),
        shown(value, longest),
    )


def side(gain: float) -> str:
    """Name a gain: better, worse, or nothing."""
    return "better" if gain > 0 else "worse" if gain < 0 else ""


FILTERS = {
    "md": markdown,
    "shown": shown,
    "side": side,
    "share": lambda value: f"{value:.1%}" if np.isfinite(value) else "-",
    "points": lambda value: points(value, 1) if np.isfinite(value) else "-",
    "mean": lambda seeds: f"{np.mean(list(seeds.values())):.2%}",
    "deviation": lambda seeds: (
        f"{100 * np.std(list(seeds.values()), ddof=1):.2f} points" if len(seeds) > 1 else "-"
    ),
}


def render(template: str, context: dict) -> str:
    """Fill in one of the templates."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS
    return environment.get_template(template).render(context)


def page(context: dict) -> str:
    """Return the report as one HTML file that needs nothing else.

    Vega comes with vl-convert. The policy in the page admits this one script, by its hash,
    and no connection.
    """
    script = vl_convert.javascript_bundle()
    script += (TEMPLATES / "charts.js").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return render("report.html", context | {"script": script, "script_hash": f"'sha256-{digest}'"})


def comment(context: dict) -> str:
    """Return the report as Markdown that fits into a comment of a pull request.

    GitHub shows no picture that is embedded in a comment, but draws Mermaid: the curves are
    written in that.
    """
    for part in (1, 2, 4, 8):  # names and values of many special characters are long once escaped
        caps = {name: cap // part for name, cap in CAPS.items()}
        text = re.sub(r"\n{3,}", "\n\n", render("report.md", context | caps))
        if len(text) <= COMMENT_LIMIT:
            return text
    raise InputError(f"the report is longer than the {COMMENT_LIMIT} characters of a comment")


def main() -> None:
    """Write both reports."""
    parser = argparse.ArgumentParser(prog="make review", description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="", help="default: where REV left the branch main")
    parser.add_argument("--rev", default="", help="default: HEAD")
    words = parser.parse_args()
    if not Path("dvc.yaml").is_file():
        raise InputError("there is no dvc.yaml here; run from the root of the repository")
    after = resolve(words.rev or "HEAD")
    before = resolve(words.base) if words.base else default_base(after)
    context = report(before, after) | {"methods": METHODS}
    FOLDER.mkdir(exist_ok=True)
    markdown_text, html_text = comment(context), page(context)
    with replacing(FOLDER / "report.md") as md, replacing(FOLDER / "report.html") as html:
        md.write_text(markdown_text, encoding="utf-8")
        html.write_text(html_text, encoding="utf-8")
    for line in filter(None, [context["sentence"], context["sentence_over_seeds"]]):
        print(f"review: {line}")
    for warning in context["warnings"]:
        print(f"review: warning: {warning}")
    print("review: review/report.md, review/report.html")


if __name__ == "__main__":
    run("review", main)
