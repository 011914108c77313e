"""All finished runs of a sweep in one table, seed and rate chosen, means and standard errors over seeds.

Made from the runs' files alone: `sweep.parquet` and `sweep.csv` hold one row a run, `summary.csv` one row for each
model, task and number of shots.
"""

from collections.abc import Sequence
from pathlib import Path

from lightning_icl.errors import OutputError
from lightning_icl.report.grid import csv_text
from lightning_icl.report.sweep import RUN, Row, chosen, row_of, summary_grid
from lightning_icl.report.terminal import print_grid
from lightning_icl.saved_json import read_json
from lightning_icl.sweeping.plan import SweepPlan


def collect(plan: SweepPlan) -> list[Row]:
    """One row for each finished run of the plan, in its order, the chosen ones marked.

    Raises:
        OutputError: no run is finished, or one cannot be read.
    """
    paths = [(unit, unit.run_folder(rate) / RUN) for unit in plan.units for rate in plan.settings.rates]
    contents = [(unit, read_json(path, "sweep_run")) for unit, path in paths if path.is_file()]
    # Runs of an older plan were measured on other data or weights.
    rows = [row_of(content) for unit, content in contents if content["fingerprint"] == plan.fingerprint(unit)]
    if not rows:
        raise OutputError(f"{str(plan.out)!r} holds no finished run of this plan.")
    return chosen(rows)


def write_tables(out: Path, rows: Sequence[Row], summary: Sequence[Row]) -> None:
    """Write `sweep.csv`, `sweep.parquet` and `summary.csv`."""
    (out / "sweep.csv").write_text(_csv(rows), encoding="utf-8")
    if summary:
        (out / "summary.csv").write_text(_csv(summary), encoding="utf-8")
    # pyarrow takes a second to import, and `--help` needs none of it.
    import pyarrow as pa
    from pyarrow import parquet

    text, whole = ("model", "task", "selected_by", "diverged"), ("shots", "seed", "demonstrations", "queries")
    # Types by name and not by value: a column of None alone would otherwise have none.
    kinds = dict.fromkeys(text, pa.string()) | dict.fromkeys(whole, pa.int64()) | {"selected": pa.bool_()}
    schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in rows[0]])
    parquet.write_table(pa.Table.from_pylist(list(rows), schema=schema), out / "sweep.parquet")


def _csv(rows: Sequence[Row]) -> str:
    return csv_text([list(rows[0]), *(["" if cell is None else str(cell) for cell in row.values()] for row in rows)])


def print_summary(rows: Sequence[Row], summary: Sequence[Row]) -> None:
    """Means and standard errors over seeds, and what diverged."""
    print_grid(summary_grid(rows, summary))
