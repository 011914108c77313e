"""The parts of the page: the table of figures, curves, one task's pictures, and how to run it again."""

from collections.abc import Sequence
from html import escape
from typing import Any

from lightning_icl.report.check import not_repeated, tolerance
from lightning_icl.report.controls import controls_grid
from lightning_icl.report.grid import grid_to_html
from lightning_icl.report.layers import TITLES, Curve, seed_curves
from lightning_icl.report.outcomes import OUTCOMES, right_count
from lightning_icl.report.page.svg import extent, heat_map, line_chart
from lightning_icl.report.paired import paired_grid
from lightning_icl.report.seeds import Run, same_task
from lightning_icl.report.strokes import Strokes, legend_of
from lightning_icl.report.tables import Row, Summary, interval_shown, shown, signed
from lightning_icl.results import CONFIG, TaskRun

_READ = {
    "sim_aou": "Do ICL and FT move the attention output the same way? 1 is the same direction, 0 is unrelated.",
    "sim_am": "Do ICL and FT look at the query's own tokens alike? Compare with how alike ICL and zero-shot are.",
    "kendall": "Do ICL and FT rank the tokens of the demonstrations alike? 1 is the same order, 0 is unrelated.",
}
_HEADS = (("per_head", "ICL and FT"), ("zsl_per_head", "ICL and ZSL"), ("difference_per_head", "differences"))


def summary_table(summary: Summary, runs: Sequence[TaskRun]) -> str:
    """The paper's table: our figures with intervals; published figures and the distance from them below."""
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in ("", *summary.tasks, "mean"))
    groups, last = "", None
    for row in summary.rows:
        if row.quantity.table != last:
            groups += ("</tbody>" if last else "") + "<tbody>"
            last = row.quantity.table
        groups += _figure_row(row) + (_published_row(row, runs) if row.published else "")
    notes = "".join(f"<li>{escape(note)}.</li>" for note in summary.notes)
    if any(row.published for row in summary.rows):
        notes += "".join(
            f"<li>{escape(run.task)} is not a repetition: {escape(why)}.</li>"
            for run in runs
            if (why := not_repeated(run))
        )
    intervals = (
        "<p class=hint>Below a figure, its 95% interval.</p>" if any(row.intervals for row in summary.rows) else ""
    )
    return (
        "<p class=hint>Accuracies and Rec2FTP in percent: of the queries that fine-tuning corrects, Rec2FTP is the "
        "share that the prompt corrects too. Indented rows are what to compare with.</p>"
        f'<div class="scroll"><table class="figures"><thead><tr>{head}</tr></thead>{groups}</tbody></table></div>'
        + intervals
        + (f'<ul class="notes">{notes}</ul>' if notes else "")
    )


def _figure_row(row: Row) -> str:
    cells = ""
    for number, value in enumerate(row.values):
        interval = row.intervals[number] if row.intervals else None
        small = f"<small>{interval_shown(row.quantity, interval)}</small>" if interval else ""
        cells += f"<td>{shown(row.quantity, value)}{small}</td>"
    kind = ' class="baseline"' if row.quantity.baseline else ""
    return (
        f"<tr{kind}><th scope=row>{escape(row.quantity.label)}</th>{cells}<td>{shown(row.quantity, row.mean)}</td></tr>"
    )


def _published_row(row: Row, runs: Sequence[TaskRun]) -> str:
    cells = ""
    for run, ours, published in zip(runs, row.values, row.published or (), strict=True):
        if published is None:
            cells += "<td>–</td>"
            continue
        apart = None if ours is None else ours - published
        kind = ""
        if not not_repeated(run):
            near = apart is not None and abs(apart) <= tolerance(row.quantity, run) + 1e-9
            kind, mark = (' class="near"', " ✓") if near else (' class="far"', " ✗")
        else:
            mark = ""
        cells += f"<td{kind}>{shown(row.quantity, published)}<small>{signed(row.quantity, apart)}{mark}</small></td>"
    mean = shown(row.quantity, row.published_mean)
    return f'<tr class="published"><th scope=row>published</th>{cells}<td>{mean}</td></tr>'


def curves_section(group: Sequence[Run]) -> str:
    """The three measures over layers, one chart for each task on a shared scale.

    Args:
        group: one run, or runs that differ in the seed alone.
    """
    parts, strokes = [], Strokes(run for runs in group for run in runs)
    for level, title in TITLES.items():
        drawn = [(same[0].task, curves) for same in same_task(group) if (curves := seed_curves(same, level))]
        if not drawn:
            continue
        span = extent([curve for _, curves in drawn for curve in curves])
        charts = "".join(
            f"<figure><figcaption>{escape(task)}</figcaption>"
            f"{line_chart(curves, f'{title}, {task}', strokes=strokes, span=span)}</figure>"
            for task, curves in drawn
        )
        parts.append(
            f"<h3>{escape(title)}</h3><p class=hint>{escape(_READ[level])}</p>"
            f'{legend(legend_of(curves for _, curves in drawn), strokes)}<div class="charts">{charts}</div>'
        )
    return "".join(parts)


def legend(curves: Sequence[Curve], strokes: Strokes) -> str:
    """Names and strokes of curves."""
    items = "".join(
        f'<li><svg class="key" viewBox="0 0 24 10" aria-hidden="true">'
        f'<g class="{"band" if curve.upper else "curve"} {strokes.name(curve)}">'
        f'<path d="{"M1 1H23V9H1Z" if curve.upper else "M1 5H23"}"/></g></svg>{escape(curve.label)}</li>'
        for curve in curves
    )
    return f'<ul class="legend">{items}</ul>'


def task_section(run: TaskRun, opened: bool = False) -> str:
    """One task: who was right, fine-tuning, heads, demonstrations."""
    tables = [grid_to_html(grid) for grid in (controls_grid([run]), paired_grid([run])) if grid]
    parts = [
        _right_table(run.results),
        _finetuning(run.results.get("finetune") or {}),
        _heads(run.results.get("sim_am") or {}),
        _demonstrations(run.results),
        f"<h4>Controls</h4>{''.join(tables)}" if tables else "",
    ]
    template = escape(str(run.results["task"].get("template", "")))
    return (
        f"<details class=task{' open' if opened else ''}><summary>{escape(run.task)}</summary>"
        f"<p class=hint>Prompt template: <code>{template}</code></p>{''.join(parts)}</details>"
    )


def _right_table(results: Any) -> str:
    table = (results.get("rec2ftp") or {}).get("right_table")
    if table is None:
        return ""
    task = escape(str(results["task"]["name"]))
    words = {cell: word for cell, (word, _) in OUTCOMES.items()}
    titles = {cell: title for cell, (_, title) in OUTCOMES.items()}

    def count(cell: tuple[bool, bool, bool]) -> str:
        return (
            f'<td><a class=jump href="#queries" data-task="{task}" data-kind="{words[cell]}">'
            f"{right_count(table, cell):,}</a>"
            f"<small>{titles[cell]}</small></td>"
        )

    rows = "".join(
        f"<tr><th scope=row>ZSL {'right' if zsl else 'wrong'}</th>"
        + "".join(count((zsl, icl, ft)) for icl in (True, False) for ft in (True, False))
        + "</tr>"
        for zsl in (False, True)
    )
    return (
        "<h4>Who was right</h4><div class=scroll><table class='figures right'><thead>"
        "<tr><th></th><th colspan=2 scope=colgroup>ICL right</th><th colspan=2 scope=colgroup>ICL wrong</th></tr>"
        "<tr><th></th><th scope=col>FT right</th><th scope=col>FT wrong</th><th scope=col>FT right</th>"
        f"<th scope=col>FT wrong</th></tr></thead><tbody>{rows}</tbody></table></div>"
        "<p class=hint>A number leads to its queries.</p>"
    )


def _finetuning(finetune: Any) -> str:
    charts = []
    for key, title, label, first in (
        ("loss", "Loss of each step", "step", 1),
        ("update_norm_per_layer", "Norm of the update", "layer", 0),
    ):
        if finetune.get(key):
            curve = Curve(label=title, role="main", values=tuple(finetune[key]))
            chart = line_chart([curve], title, x_label=label, first=first)
            charts.append(f"<figure><figcaption>{title}</figcaption>{chart}</figure>")
    rate = f", learning rate {finetune['lr']:g}" if finetune.get("lr") is not None else ""
    return f"<h4>Fine-tuning{rate}</h4><div class=charts>{''.join(charts)}</div>" if charts else ""


def _heads(sim_am: Any) -> str:
    maps = [
        f"<figure><figcaption>{label}</figcaption>{heat_map(sim_am[key], f'Attention maps per head, {label}')}</figure>"
        for key, label in _HEADS
        if sim_am.get(key)
    ]
    if not maps:
        return ""
    return (
        "<h4>Attention maps, head by head</h4><p class=hint>Cosine of the attention scores: "
        "<span class='swatch negative'></span> −1, <span class='swatch'></span> 0, "
        f"<span class='swatch positive'></span> 1.</p><div class=charts>{''.join(maps)}</div>"
    )


def _demonstrations(results: Any) -> str:
    chosen, kendall = results.get("demonstrations") or {}, results.get("kendall") or {}
    texts = chosen.get("texts") or []
    maps, shares = [], []
    for key, title in (("example_icl", "ICL attention"), ("example_ft", "FT inner products")):
        if kendall.get(key):
            scaled = [_scaled(layer) for layer in kendall[key]]
            chart = heat_map(scaled, title, columns="demonstration")
            maps.append(f"<figure><figcaption>{title}</figcaption>{chart}</figure>")
            shares.append((title, [sum(values) / len(values) for values in zip(*scaled, strict=True)]))
    if not texts and not maps:
        return ""
    rows = ""
    for number in range(len(texts) or len(shares[0][1])):
        meters = "".join(
            f'<td><meter value="{share[number]:.3f}">{share[number]:.2f}</meter></td>' for _, share in shares
        )
        text = escape(str(texts[number])) if number < len(texts) else ""
        rows += f"<tr><td>{number}</td>{meters}<td class=text>{text}</td></tr>"
    heads = "".join(f"<th scope=col>{title}</th>" for title, _ in shares)
    about = (
        "<p class=hint>Scaled within each layer from the least attended demonstration (0) to the most (1); the list "
        "shows the mean over layers.</p>" if maps else ""
    )  # fmt: skip
    return (
        f"<h4>Demonstrations</h4>{about}<div class=charts>{''.join(maps)}</div><div class='scroll tall'>"
        f"<table class=figures><thead><tr><th></th>{heads}<th scope=col>text</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _scaled(values: Sequence[float | None]) -> tuple[float, ...]:
    there = [value for value in values if value is not None] or [0.0]
    low, span = min(there), (max(there) - min(there)) or 1.0
    return tuple(0.0 if value is None else (value - low) / span for value in values)


def run_section(runs: Sequence[TaskRun]) -> str:
    """The command that makes each task again, its configuration, and the versions it ran with."""
    parts = []
    for run in runs:
        path = run.folder / CONFIG
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            command = "validate" if "\noverlay:" in text else "compare"
            parts.append(
                f"<details><summary>{escape(run.task)}</summary>"
                f"<p>Save this as <code>{escape(run.task)}.yaml</code>, then: "
                f"<code>lightning-icl {command} --config {escape(run.task)}.yaml --out again</code></p>"
                f"<pre>{escape(text)}</pre></details>"
            )
    versions = runs[0].results.get("versions") or {}
    rows = "".join(
        f"<tr><th scope=row>{escape(str(name))}</th><td>{escape(str(value))}</td></tr>"
        for name, value in versions.items()
    )
    table = (
        f"<h3>Versions</h3><div class=scroll><table class=figures><tbody>{rows}</tbody></table></div>" if rows else ""
    )
    return "".join(parts) + table
