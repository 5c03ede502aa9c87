"""Stage report: table, verdict, headline metrics and page, and the rows' way into the ledger."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from scoremodel.io.files import atomic_path, write_text
from tasks.files.layout import METRICS, REPORT, TABLE, VERDICT, Configuration
from tasks.files.leftovers import put_away_leftovers
from tasks.files.lock import read_lock
from tasks.files.resolved import resolved
from tasks.files.stage import run_stage
from tasks.report.page import page
from tasks.results.active import active_configurations
from tasks.results.ledger import append
from tasks.results.table import read_applications, read_records, summary, table
from tasks.results.verdict import markdown, verdicts

__all__ = ["headline_metrics", "main"]


def headline_metrics(rows: pd.DataFrame) -> dict[str, Any]:
    """Return the few numbers that DVC shows of each method: data set → model → sampler → number.

    Args:
        rows: the table.

    Returns:
        The mean over training seeds of the distance to held-out data, and how many floors it is.
    """
    found: dict[str, Any] = {}
    for row in summary(rows):
        models = found.setdefault(row["dataset"], {})
        models.setdefault(row["model"], {})[row["sampler"]] = {
            "held_out": round(row["held_out"], 6),
            "ratio_to_floor": round(row["ratio_to_floor"], 6),
        }
    return found


def main(_: Configuration) -> None:
    """Append the active configurations' records to the ledger; write table, verdict and page."""
    put_away_leftovers()
    active = resolved("active")
    records = read_records(active)
    found = read_applications(active)
    lock = read_lock()
    ledger = [
        append(record, configuration, lock)[0]
        for configuration, record in zip(active_configurations(active), records, strict=True)
    ]
    rows = table(records, [row["seconds"]["sample"] for row in ledger], found)
    with atomic_path(TABLE) as temporary:
        rows.to_csv(temporary, index=False)
    write_text(METRICS, json.dumps(headline_metrics(rows), indent=1) + "\n")
    took = {row["configuration"]: row["seconds"] for row in ledger}
    judged = verdicts(records, seconds=took, applications=found)
    write_text(VERDICT, markdown(judged, records, rows))
    write_text(REPORT, page(active, rows, records, ledger, found, judged))
    print(f"report: {REPORT}")


if __name__ == "__main__":
    run_stage(main)
