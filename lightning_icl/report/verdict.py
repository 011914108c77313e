"""What a run says, in three sentences for who reads nothing else: what was learnt, how alike, and beside what."""

from collections.abc import Iterator, Sequence
from typing import Any

from lightning_icl.measures import FIGURES, Figure, compared, curve_figures
from lightning_icl.report.controls import control_names, controls_of, mean_of
from lightning_icl.report.figures import interval_of, interval_shown, mean, mean_interval, shown, value_of
from lightning_icl.report.paired import control_tests, corrected
from lightning_icl.report.tables import model_name
from lightning_icl.results import TaskRun

_SURE = 0.05
_NAMED = 6  # controls named in a sentence


def verdict(runs: Sequence[TaskRun]) -> list[str]:
    """The sentences, of means where there are several tasks; fewer where a run has not measured what they say."""
    return [*_learnt(runs), *_alike(runs), *_beside(runs)]


def _figure(path: str) -> Figure:
    return next(figure for figure in FIGURES if figure.path == path)


def _mean(figure: Figure, runs: Sequence[TaskRun]) -> float | None:
    return mean([value_of(figure, run.results) for run in runs])


def _learnt(runs: Sequence[TaskRun]) -> Iterator[str]:
    icl, zsl, ft = (_figure(f"accuracy.{view}") for view in ("icl", "zsl", "ft"))
    values = {figure.key: _mean(figure, runs) for figure in (icl, zsl, ft)}
    if values["icl"] is None or values["zsl"] is None:
        return
    tuned = "" if values["ft"] is None else f", fine-tuned on the demonstrations (FT) {shown(ft, values['ft'])}%"
    yield (
        f"With {_demonstrations(runs)} in the prompt (ICL), {model_name(runs)} answers {shown(icl, values['icl'])}% of "
        f"the queries rightly, without (ZSL) {shown(zsl, values['zsl'])}%{tuned}{mean_of(runs)}."
    )


def _demonstrations(runs: Sequence[TaskRun]) -> str:
    counts = [(run.results.get("demonstrations") or {}).get("count") for run in runs]
    defined = [count for count in counts if count is not None]
    if not defined:
        return "demonstrations"
    least, most = min(defined), max(defined)
    return f"{least} demonstrations" if least == most else f"{least} to {most} demonstrations"


def _alike(runs: Sequence[TaskRun]) -> Iterator[str]:
    """The main similarity beside its baseline; Rec2FTP beside the accuracy that makes it easy."""
    parts = []
    share = _figure("rec2ftp.value")
    if (value := _mean(share, runs)) is not None:
        corrected_queries = sum((run.results.get("rec2ftp") or {}).get(share.count) or 0 for run in runs)
        number = f"{corrected_queries:,.0f} " if corrected_queries else ""
        parts.append(
            f"of the {number}queries that fine-tuning corrects, the prompt corrects {shown(share, value)}% too"
        )
    figure = main_figure()
    value = _mean(figure, runs)
    if value is not None:
        values, ends = zip(
            *((value_of(figure, run.results), interval_of(figure, run.results)) for run in runs), strict=True
        )
        interval = interval_shown(figure, mean_interval(values, ends))
        beside = [
            f"{other.label} {shown(other, baseline)}"
            for other in FIGURES
            if other.measure == figure.measure
            and other.role == "baseline"
            and (baseline := _mean(other, runs)) is not None
        ]
        brackets = "; ".join(filter(None, (f"95% interval {interval}" if interval else "", *beside)))
        parts.append(
            f"the two move the representations alike with {figure.measure.name} {shown(figure, value)}"
            + (f" ({brackets})" if brackets else "")
        )
    if parts:
        # The first letter becomes capital, whatever the first part is.
        text = "; ".join(parts)
        yield f"{text[0].upper()}{text[1:]}."
    elif any(run.results.get("finetune") is None for run in runs):
        yield "Nothing was fine-tuned, so that in-context learning is compared with nothing."


def main_figure() -> Figure:
    """The similarity that the claim stands on: the first that has lines over layers."""
    # The claim is about representations, so the first figure with layers stands for it.
    return next(figure for figure in compared() if curve_figures(figure.measure.level))


def _beside(runs: Sequence[TaskRun]) -> Iterator[str]:
    """How many controls the main similarity tells apart from the run, and which it does not."""
    figure = main_figure()
    if _mean(figure, runs) is None:
        return
    names = control_names(runs)
    if not names:
        yield (
            f"No control was measured, so nothing says whether {figure.measure.name} would be lower where nothing is "
            "learnt: compare --controls all."
        )
        return
    every = {name: test for (name, path), test in control_tests(runs).items() if path == figure.path and not test.equal}
    tests = dict(zip(every, corrected(list(every.values())), strict=True))
    below = [name for name, test in tests.items() if test.difference > 0 and test.p < _SURE]
    # Lower and significantly so: a control that merely looks lower may be so by chance.
    others = [name for name in tests if name not in below]
    # All controls equal by construction leaves nothing to say.
    if not tests:
        return
    text = f"{figure.measure.name} is lower under {len(below)} of {len(tests)} controls (p < {_SURE}, corrected)"
    if others:
        named = ", ".join(f"{name} ({shown(figure, _control_mean(figure, name, runs))})" for name in others[:_NAMED])
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        text += f"; as high or higher, or not told apart, under {named}{more}"
    yield f"{text}."


def _control_mean(figure: Figure, name: str, runs: Sequence[TaskRun]) -> float | None:
    values: list[Any] = [value_of(figure, controls_of(run)[name]) for run in runs if name in controls_of(run)]
    return mean(values)
