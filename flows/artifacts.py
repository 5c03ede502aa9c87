"""What a flow shows at its end: the verdict with samples, the table, and what became of each stage."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact

from flows.progress import patiently
from tasks.files.documents import read_text
from tasks.files.layout import REPORT, TABLE, VERDICT
from tasks.files.schedule import Done
from tasks.results.shown import markdown_table, summary_of, verdict_page
from tasks.results.table import labels, read_table, terminal, text

__all__ = ["publish", "publish_results", "publish_summary"]

_RESTART = 120.0  # seconds that a server may take to come back


def publish(content: str | pd.DataFrame, key: str, description: str) -> None:
    """Show a text or a table as an artifact; where the server does not take it, say so and go on.

    Args:
        content: the text, in Markdown, or the table.
        key: the artifact's key.
        description: what it is.
    """
    markdown = content if isinstance(content, str) else markdown_table(content)
    try:
        make: Callable[[], Any] = partial(
            create_markdown_artifact, markdown, key=key, description=description
        )
        patiently(make, seconds=_RESTART)
    except Exception as error:  # whatever a server or the way to it can do: no result depends on it
        get_run_logger().warning("the server did not take the artifact %r: %r", key, error)


def publish_results(root: Path) -> None:
    """Show the verdict with samples, and the table.

    Args:
        root: the workspace.
    """
    rows, verdict = read_table(root / TABLE), read_text(root / VERDICT)
    page = verdict_page(root, rows, verdict)
    publish(page, "verdict", "which model is better, and samples")
    shown = rows[terminal()].rename(columns=labels())
    publish(shown, "results", "distances of the active configurations")
    get_run_logger().info(
        "\n%s\n\n%s\n\nreport: %s", verdict, text(rows), (root / REPORT).resolve().as_uri()
    )


def publish_summary(
    done: Collection[Done], failed: Mapping[str, str], pedigree: Mapping[str, str]
) -> None:
    """Say what ran, what did not have to, how long each took, and why others failed.

    Args:
        done: the stages that ended well.
        failed: reason of each that did not.
        pedigree: commit, parameters' hash, and the like.
    """
    line, rows = summary_of(done, failed)
    said = "\n".join(f"- {name}: `{value}`" for name, value in pedigree.items())
    publish(
        f"{line}\n\n{markdown_table(rows)}\n\n{said}",
        "stages",
        "what ran, what was cached, how long each took",
    )
    shown = rows[rows["outcome"] != "up to date"]
    table = "" if shown.empty else "\n" + shown.to_string(index=False, na_rep="")
    get_run_logger().info("%s%s", line, table)
