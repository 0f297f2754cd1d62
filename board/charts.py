"""The charts of a section, as Plotly takes them."""

import html
import math
from dataclasses import dataclass
from statistics import median
from typing import Any

import optuna

from board.scores import Section, Setting
from review.rendering import one_line
from search.results import Result

Trace = dict[str, Any]
POINTS = 100  # of a curve: a page of hundreds of curves stays small
LEAST = 10  # settings from which on an importance tells anything
SPREAD = 20  # the largest value over the smallest one from which on an axis may be logarithmic
MARKS = {"the best": "star", "cannot be told from the best": "circle", "worse": "x-thin-open"}
DASHES = {"finished": "solid", "pruned": "dot", "failed": "dash"}


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes
    ----------
    title, note : str
        What it shows, and how it is read.
    data : list of dict
        Plotly's traces; empty if there is nothing to draw, for the reason in `note`.
    layout : dict
        Plotly's layout.
    is_wide : bool
        Whether it takes the whole width of the page.
    axes : int
        How many axes stand beside each other, where they need room; else 0.
    """

    title: str
    note: str
    data: list[Trace]
    layout: dict[str, Any]
    is_wide: bool = False
    axes: int = 0


def plain(text: object) -> str:
    """Return a text in which Plotly sees no markup."""
    return html.escape(one_line(text), quote=False)


def charts_of(section: Section, parameters: list[str]) -> list[Chart]:
    """Return the charts of a section that has scored settings; none if it has none.

    Parameters
    ----------
    section : Section
        The settings.
    parameters : list of str
        The parameters in which they differ.
    """
    settings = [setting for setting in section.settings if setting.accuracy is not None]
    if not settings:
        return []
    return [
        accuracies(settings),
        curves(section, "accuracy"),
        curves(section, "loss"),
        parallel(settings, parameters),
        importance(settings, parameters),
        *(against(settings, parameter) for parameter in parameters),
    ]


def by_standing(settings: list[Setting]) -> dict[str, list[Setting]]:
    """Return the settings by how they compare with the best, which comes last, on top."""
    groups: dict[str, list[Setting]] = {}
    for setting in reversed(settings):
        groups.setdefault(setting.standing, []).append(setting)
    return groups


def dots(settings: list[Setting], standing: str, x: list[object]) -> Trace:
    """Return the accuracies of settings of one standing as marks over `x`."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": standing,
        "x": x,
        "y": [setting.accuracy for setting in settings],
        "text": [plain(setting.results[0].name) for setting in settings],
        "marker": {"symbol": MARKS.get(standing, "circle-open"), "size": 9, "line": {"width": 1.5}},
        "hovertemplate": "%{text}<br>%{x}<br>%{y:.2%}<extra></extra>",
    }


def accuracies(settings: list[Setting]) -> Chart:
    """Return the accuracy of each setting with its interval, the best first."""
    places = {id(setting): place for place, setting in enumerate(settings, 1)}
    traces = []
    for standing, group in by_standing(settings).items():
        trace = dots(group, standing, [places[id(setting)] for setting in group])
        held = [(s.accuracy or 0.0, s.interval) for s in group]
        ends = [(accuracy, *(found or (accuracy, accuracy))) for accuracy, found in held]
        above = [high - accuracy for accuracy, _, high in ends]
        below = [accuracy - low for accuracy, low, _ in ends]
        errors = {"array": above, "arrayminus": below, "symmetric": False}
        traces.append(trace | {"error_y": errors | {"thickness": 1, "width": 0}})
    layout = {"xaxis": {"title": {"text": "place"}}, "yaxis": accuracy_axis(settings)}
    note = (
        "Bars are 95% intervals. The sign says how a setting compares with the best. Double-click "
        "shows what lies below."
    )
    return Chart("Accuracy of each setting", note, traces, layout, is_wide=True)


def curves(section: Section, quantity: str) -> Chart:
    """Return the validation curves of all results over each other."""
    traces: dict[str, Trace] = {}
    for setting in reversed(section.settings):
        for result in setting.results:
            kind = "the best" if setting.is_best else result.state
            line = {"width": 3 if setting.is_best else 1, "dash": DASHES.get(kind, "solid")}
            trace = traces.setdefault(
                kind,
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": kind,
                    "line": line,
                    "opacity": 1 if kind != "finished" else 0.45,
                    **{key: [] for key in ("x", "y", "text")},
                    "hovertemplate": "%{text}<br>epoch %{x}: %{y}<extra></extra>",
                },
            )
            for epoch, value in points_of(result, quantity):
                trace["x"].append(epoch)
                trace["y"].append(value)
                trace["text"].append(plain(result.name))
            for key in ("x", "y", "text"):  # the pen is lifted
                trace[key].append(None)
    layout = {
        "xaxis": {"title": {"text": "epoch"}, "rangemode": "tozero"},
        "yaxis": axis(f"validation {quantity}", share=quantity == "accuracy"),
    }
    if quantity == "loss":
        layout["yaxis"]["type"] = "log"
    note = "A line is one training. Pruned ones are dotted, failed ones dashed."
    return Chart(f"Validation {quantity}", note, list(traces.values()), layout)


def points_of(result: Result, quantity: str) -> list[tuple[int, float | None]]:
    """Return epochs and values of a curve, at most about `POINTS`, the last one among them."""
    if result.curve is None or result.curve.empty:
        return []
    table = result.curve
    kept = table[:: -(-len(table) // POINTS)]
    if kept.index[-1] != table.index[-1]:
        kept = type(table)(table.loc[[*kept.index, table.index[-1]]])
    values = kept[f"validation_{quantity}"].round(5)
    return [
        (int(epoch), float(value) if math.isfinite(value) else None)
        for epoch, value in zip(kept["epoch"], values, strict=True)
    ]


def axis(title: str, values: list[object] | None = None, *, share: bool = False) -> dict[str, Any]:
    """Return an axis: of shares in percent, or for some values, logarithmic if they need it."""
    found: dict[str, Any] = {"title": {"text": plain(title)}}
    if share:
        return found | {"tickformat": ".1~%"}
    if values is not None and not are_numbers(values):
        return found | {"type": "category"}
    found["exponentformat"] = "e"
    return found | ({"type": "log"} if values and needs_logarithm(values) else {})


def accuracy_axis(settings: list[Setting]) -> dict[str, Any]:
    """Return the axis of the accuracies, which leaves out the worst where they would fill it."""
    accuracies = [setting.accuracy or 0.0 for setting in settings]
    best = max(accuracies)
    low = best - 4 * (best - median(accuracies))
    held = zip(accuracies, (setting.interval for setting in settings), strict=True)
    ends = [end for value, found in held if value >= low for end in (value, *(found or ()))]
    margin = (max(ends) - min(ends)) / 20 or 0.01
    found = {"range": [min(ends) - margin, max(ends) + margin]}
    return axis("accuracy", share=True) | found


def are_numbers(values: list[Any]) -> bool:
    """Return whether all values are numbers that can be drawn."""
    return all(type(value) in (int, float) and math.isfinite(value) for value in values)


def needs_logarithm(values: list[Any]) -> bool:
    """Return whether numbers extend over orders of magnitude, most of them near the low end."""
    high = max(values)
    return min(values) > 0 and high > SPREAD * min(values) and median(values) < high / 5


def against(settings: list[Setting], parameter: str) -> Chart:
    """Return the accuracies against one parameter."""
    settings = [setting for setting in settings if parameter in setting.results[0].params]
    values = [setting.results[0].params[parameter] for setting in settings]
    numbers = are_numbers(values)
    traces = []
    for standing, group in by_standing(settings).items():
        held = [setting.results[0].params[parameter] for setting in group]
        traces.append(dots(group, standing, [v if numbers else plain(v) for v in held]))
    layout = {"xaxis": axis(parameter, values), "yaxis": accuracy_axis(settings)}
    return Chart(f"Accuracy against {one_line(parameter)}", "", traces, layout)


def parallel(settings: list[Setting], parameters: list[str]) -> Chart:
    """Return parallel coordinates: a line a setting, an axis a parameter, accuracy the last.

    Plotly's own need WebGL and a page that runs code made at run time; lines need neither.
    """
    title = "Parallel coordinates"
    names = [*parameters, "accuracy"]
    settings = [s for s in settings if all(name in s.results[0].params for name in parameters)]
    if len(settings) < 2 or not parameters:
        return Chart(title, "There are no two settings to tell apart.", [], {}, is_wide=True)
    scales = [
        scale_of([setting.results[0].params[name] for setting in settings]) for name in parameters
    ]
    accuracies, ends = scale_of([setting.accuracy for setting in settings])
    scales.append((accuracies, [(height, f"{float(end):.2%}") for height, end in ends]))
    heights = {
        id(setting): heights
        for setting, *heights in zip(settings, *(scale[0] for scale in scales), strict=True)
    }
    traces = []
    for standing, group in by_standing(settings).items():
        line = {"width": 3 if standing == "the best" else 1}
        trace: Trace = {"type": "scatter", "mode": "lines", "name": standing, "line": line}
        trace |= {"opacity": 0.35 if standing == "worse" else 1, "x": [], "y": [], "text": []}
        for setting in group:
            trace["x"] += [*range(len(names)), None]  # the pen is lifted
            trace["y"] += [*heights[id(setting)], None]
            trace["text"] += [plain(setting.results[0].name)] * len(names) + [None]
        traces.append(trace | {"hovertemplate": "%{text}<extra></extra>"})
    labels = [
        {"x": place, "y": height, "text": text, "showarrow": False}
        for place, (_, marks) in enumerate(scales)
        for height, text in marks
    ]
    ticks = {"tickvals": [*range(len(names))], "ticktext": [plain(name) for name in names]}
    layout = {
        "xaxis": ticks | {"title": {"text": ""}, "range": [-0.4, len(names) - 0.6]},
        "yaxis": {"visible": False},
        "annotations": labels,
    }
    note = "Each axis runs from the lowest value, below, to the highest. The table has the numbers."
    return Chart(title, note, traces, layout, is_wide=True, axes=len(names))


def scale_of(values: list[Any]) -> tuple[list[float], list[tuple[float, str]]]:
    """Return where values lie on an axis from 0 to 1, and the labels of the axis."""
    if not are_numbers(values):
        names = sorted({plain(value) for value in values})
        step = 1 / max(len(names) - 1, 1)
        heights = [names.index(plain(value)) * step for value in values]
        return heights, [(place * step, name) for place, name in enumerate(names)]
    is_log = needs_logarithm(values)
    low, high = min(values), max(values)
    width = (math.log(high / low) if is_log else high - low) or 1
    heights = [(math.log(value / low) if is_log else value - low) / width for value in values]
    return heights, [(0, f"{low:.4g}"), (1, f"{high:.4g}")]


def importance(settings: list[Setting], parameters: list[str]) -> Chart:
    """Return how much of what distinguishes the good settings each parameter tells."""
    title = "Importance of the parameters"
    whole = [s for s in settings if all(name in s.results[0].params for name in parameters)]
    if len(whole) < LEAST or len(parameters) < 2:
        note = (
            f"Too few results: it takes {LEAST} settings that differ in two parameters or more; "
            f"here are {len(whole)}, and {len(parameters)} that differ."
        )
        return Chart(title, note, [], {})
    distributions = {}
    for name in parameters:
        values: list[Any] = [setting.results[0].params[name] for setting in whole]
        distributions[name] = distribution_of(values)
    study = optuna.create_study(direction="maximize")
    for setting in whole:
        held = {
            name: setting.results[0].params[name]
            if not isinstance(found, optuna.distributions.CategoricalDistribution)
            else repr(setting.results[0].params[name])
            for name, found in distributions.items()
        }
        study.add_trial(
            optuna.create_trial(params=held, distributions=distributions, value=setting.accuracy)
        )
    found = optuna.importance.get_param_importances(study)
    names = [plain(name) for name in reversed(found)]
    bars = {"type": "bar", "orientation": "h", "x": [*reversed(found.values())], "y": names}
    bars |= {
        "text": names,
        "textposition": "none",
        "hovertemplate": "%{y}: %{x:.0%}<extra></extra>",
    }
    layout = {"xaxis": axis("importance", share=True), "yaxis": {"automargin": True}}
    note = (
        "How far the best tenth of the settings differs from all in this parameter, as a share of "
        f"all (PED-ANOVA, from {len(whole)} settings). It says where to look, and proves nothing."
    )
    return Chart(title, note, [bars], layout)


def distribution_of(values: list[Any]) -> optuna.distributions.BaseDistribution:
    """Return the range from which the values of a parameter can have been drawn."""
    if not are_numbers(values):
        return optuna.distributions.CategoricalDistribution(sorted({repr(v) for v in values}))
    low, high, log = min(values), max(values), needs_logarithm(values)
    if all(type(value) is int for value in values):
        return optuna.distributions.IntDistribution(low, high, log=log)
    return optuna.distributions.FloatDistribution(low, high, log=log)
