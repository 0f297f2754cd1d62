"""A report to its two files: review/report.html, a page, and review/report.md, a comment."""

import base64
import hashlib
import math
import re
from dataclasses import dataclass
from pathlib import Path

import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from common.console import InputError
from common.outputs import replacing
from review.bootstrap import RESAMPLES, Estimate
from review.report import Report
from review.sentences import points
from review.significance import probability

PAGE = Path("review/report.html")
COMMENT = Path("review/report.md")
TEMPLATES = Path(__file__).parent / "templates"
COMMENT_LIMIT = 65_536  # characters that GitHub takes in a comment
LONGEST = 80  # characters of a name or a value in a table
JOINERS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"
METHODS = (
    "Same test images: exact McNemar test (McNemar, Psychometrika 12, 1947), paired t interval of "
    "the difference (Agresti, Categorical Data Analysis); F1, loss and calibration error: paired "
    f"bootstrap, {RESAMPLES:,} draws, percentile intervals (Efron and Tibshirani, An Introduction "
    "to the Bootstrap, 1993). Different test images: chi-squared test of two proportions, Welch's "
    "interval. Several seeds: t test over seeds and images (Obuchowski and Rockette, "
    "Communications in Statistics 24, 1995; Hillis, Statistics in Medicine 26, 2007) where all "
    "scored the same images, else Welch's t test (Biometrika 34, 1947). Corrected for the settings "
    "that were compared on these images: Holm, Scandinavian Journal of Statistics 6, 1979. "
    "Intervals at 95%; an improvement where the corrected p < 0.05, a regression where p < 0.05. "
    "Computed with SciPy."
)


@dataclass(frozen=True)
class Limits:
    """What the comment shows at most, so that it fits. The page shows all.

    Attributes
    ----------
    rows : int
        Rows of the tables of parameters, stages and metrics.
    changes : int
        Classes and confusions, those that changed most.
    epochs : int
        A curve of more epochs is not drawn.
    images : int
        Images that are named, of those newly right and of those newly wrong.
    """

    rows: int = 40
    changes: int = 5
    epochs: int = 100
    images: int = 12

    def divided_by(self, divisor: int) -> "Limits":
        """Return smaller limits."""
        return Limits(
            self.rows // divisor,
            self.changes // divisor,
            self.epochs // divisor,
            self.images // divisor,
        )


def write_report(report: Report) -> None:
    """Write both files, or none."""
    comment_text, page_text = comment(report), page(report)
    COMMENT.parent.mkdir(exist_ok=True)
    with replacing(COMMENT) as new_comment, replacing(PAGE) as new_page:
        new_comment.write_text(comment_text, encoding="utf-8")
        new_page.write_text(page_text, encoding="utf-8")


def page(report: Report) -> str:
    """Return the report as one HTML file that needs nothing else.

    Vega, which draws the charts, comes with vl-convert. The security policy of the page admits
    this one script, by its hash, and no connection.
    """
    # The type stub of vl-convert lacks the default of the argument: its own snippet.
    script = vl_convert.javascript_bundle()  # type: ignore[call-arg]
    script += (TEMPLATES / "charts.js").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return render("report.html", report, script=script, script_hash=f"'sha256-{digest}'")


def comment(report: Report) -> str:
    """Return the report as Markdown that fits into a comment of a pull request.

    GitHub shows no picture that is embedded in a comment, but draws Mermaid: the curves are
    written in that.

    Raises
    ------
    InputError
        If even the smallest report does not fit.
    """
    # Names and values of many special characters are long once they are escaped.
    for divisor in (1, 2, 4, 8):
        text = render("report.md", report, limits=Limits().divided_by(divisor))
        text = re.sub(r"\n{3,}", "\n\n", text)
        if len(text) <= COMMENT_LIMIT:
            return text
    raise InputError(f"the report is longer than the {COMMENT_LIMIT} characters of a comment")


def render(template: str, report: Report, **variables: object) -> str:
    """Fill in one of the templates.

    Parameters
    ----------
    template : str
        Its name.
    report : Report
        The variable ``report``.
    **variables
        What else this template reads.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "markdown": markdown,
        "one_line": one_line,
        "better_or_worse": better_or_worse,
        "share": share,
        "points": points_or_dash,
        "mean": mean_or_dash,
        "deviation": deviation_or_dash,
        "estimate": estimate,
        "probability": probability,
    }
    return environment.get_template(template).render(report=report, methods=METHODS, **variables)


def one_line(value: object, longest: int = LONGEST) -> str:
    """Return a text of one printable line, cut in the middle if it is too long.

    Examples
    --------
    >>> one_line("images/of/a/long/name.jpg", 10)
    'image…e.jpg'
    """
    # Joiners hold emoji, Persian and Indian letters together; Python does not call them printable.
    text = "".join(
        letter if letter.isprintable() or letter in JOINERS else "\N{REPLACEMENT CHARACTER}"
        for letter in str(value)
    )
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[-half:]}"


def markdown(value: object, longest: int = LONGEST) -> str:
    """Return a text in which Markdown and HTML see no markup, link, mention or issue.

    Examples
    --------
    >>> markdown("@team")
    '&#64;team'
    """
    return re.sub(
        r"[^\w ./,:;=%+()→…-]|\b_|_\b|:(?=//)|(?<=www)\.",
        lambda match: "".join(f"&#{ord(letter)};" for letter in match.group()),
        one_line(value, longest),
    )


def better_or_worse(gain: float) -> str:
    """Name a gain: better, worse, or nothing."""
    if gain > 0:
        return "better"
    return "worse" if gain < 0 else ""


def share(value: float) -> str:
    """Write a share of 1 in percent; "-" if it is not known."""
    return f"{value:.1%}" if math.isfinite(value) else "-"


def points_or_dash(value: float) -> str:
    """Write a difference of two shares in percentage points; "-" if it is not known."""
    return points(value, 1) if math.isfinite(value) else "-"


def mean_or_dash(value: float | None) -> str:
    """Write the mean of some accuracies; "-" if there are none."""
    return "-" if value is None else f"{value:.2%}"


def deviation_or_dash(value: float | None) -> str:
    """Write the standard deviation of some accuracies; "-" if there are fewer than two."""
    return "-" if value is None else f"{100 * value:.2f} points"


def estimate(value: Estimate, sign: str = "") -> str:
    """Write a value and its interval, with four digits behind the point.

    Parameters
    ----------
    value : Estimate
        What is written.
    sign : str, default ""
        "+" for a difference.
    """
    numbers = (format(number, f"{sign}.4f") for number in (value.value, value.low, value.high))
    return "{} ({} to {})".format(*numbers)
