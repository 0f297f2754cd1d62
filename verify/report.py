"""What was found, as lines in a terminal and as a page: verify/report.md."""

from collections.abc import Iterable
from pathlib import Path

from common.outputs import replacing
from review.rendering import markdown, one_line
from review.revision import Revision
from verify.equivalence import LEVEL
from verify.findings import Findings, Output, points

PAGE = Path("verify/report.md")
METHODS = (
    "Equivalent: two one-sided tests at 5% (Schuirmann, Journal of Pharmacokinetics and "
    "Biopharmaceutics 15, 1987), which is a 90% interval inside the margin; of the accuracies "
    "Tango's score interval of paired proportions (Statistics in Medicine 17, 1998), of the "
    "confidences the paired t interval."
)


def row(output: Output) -> str:
    """Return the line of an output in a terminal."""
    said = "same bytes" if output.is_same else "other bytes"
    hashes = (
        "" if output.is_same else f"{short(output.committed)} committed, {short(output.here)} here"
    )
    return f"  {output.stage:<10}{one_line(output.path):<32}{said:<13}{hashes}".rstrip()


def short(md5: str) -> str:
    """Return the part of a hash that is shown."""
    return md5[:8] or "-"


def sentence(revision: Revision, findings: Findings) -> str:
    """Return what is read first."""
    verdict, reason = findings.verdict()
    return f"{verdict}: {revision.name} ({revision.commit[:10]}): {reason}."


def print_findings(revision: Revision, findings: Findings) -> None:
    """Print the sentence, and what is behind it."""
    print(f"verify: {sentence(revision, findings)}")
    for fault in (*findings.unmade, *findings.contradictions, *findings.mismatches):
        print(f"  {fault}")
    for output in findings.differing:
        print(row(output))
    for name, (there, here) in (findings.provenance or {}).items():
        print(f"  {name}: there {one_line(there)}, here {one_line(here)}")
    for name, value in measures(findings):
        print(f"  {name}: {value}")


def measures(findings: Findings) -> Iterable[tuple[str, str]]:
    """Return what was compared of the predictions, by name."""
    found = findings.equivalence
    if found is None:
        return
    model = "cannot be had here, so that its predictions are not tried"
    if findings.changed_images is not None:
        model = f"says here of {findings.changed_images:,} images something else than is committed"
    yield "the committed model", model
    yield "margin", f"{100 * found.margin.value:.2f} points: {found.margin.reason}"
    for name, difference in (("accuracy", found.accuracy), ("mean confidence", found.confidence)):
        yield (
            name,
            f"{points(difference)} points, {LEVEL:.0%} interval {100 * difference.low:+.2f} to "
            f"{100 * difference.high:+.2f}",
        )
    yield "the same prediction", f"{found.agreement:.2%} of {found.images:,} images"
    committed, here = found.calibration_errors
    yield "calibration error", f"{committed:.4f} committed, {here:.4f} here"
    yield "rank correlation of the confidences", f"{found.likeness:.4f}"
    others = {
        "another seed": found.likeness_of_other_seed,
        "this seed with other threads": found.likeness_of_same_seed,
    }
    for name, likeness in others.items():
        if likeness is not None:
            yield f"that of {name}", f"{likeness:.4f}"


def table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Return the lines of a table in Markdown; none if it has no row."""
    body = [f"| {' | '.join(markdown(cell, 300) for cell in cells)} |" for cells in rows]
    if not body:
        return []
    return [f"| {' | '.join(header)} |", "| --- " * len(header) + "|", *body, ""]


def write_page(revision: Revision, findings: Findings) -> None:
    """Write the page, whole or not at all."""
    lines = [f"# {markdown(sentence(revision, findings), 2000)}", ""]
    faults = (*findings.unmade, *findings.contradictions, *findings.mismatches)
    lines += [f"- {markdown(text, 1000)}" for text in faults] + [""]
    lines += table(
        ("stage", "output", "", "hash as committed", "hash here"),
        (
            (o.stage, o.path, "same bytes" if o.is_same else "other bytes", o.committed, o.here)
            for o in findings.outputs
        ),
    )
    if findings.provenance is None and findings.outputs:
        lines += ["Where the result was made is not recorded.", ""]
    lines += table(
        ("what differs", "where it was made", "here"),
        ((name, *pair) for name, pair in (findings.provenance or {}).items()),
    )
    lines += table(
        ("stage", "what it runs"),
        ((name, str(stage.get("cmd"))) for name, stage in revision.stages.items()),
    )
    lines += table(
        ("package", "in the lock", "here"),
        ((name, *pair) for name, pair in findings.packages.items()),
    )
    if findings.equivalence:
        lines += table(("committed against made here", ""), measures(findings))
        lines += [METHODS, ""]
    with replacing(PAGE) as new_page:
        new_page.write_text("\n".join(lines), encoding="utf-8")
