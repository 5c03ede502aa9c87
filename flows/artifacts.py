"""What a flow shows at its end: the table, the samples, the verdict, and what became of each stage."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from prefect import get_run_logger
from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_table_artifact,
)
from ruamel.yaml import YAML

from flows.progress import artifact_key
from flows.stages import Done
from tasks.files.layout import PICTURES, REPORT, TABLE, VERDICT
from tasks.results.active import active_configurations
from tasks.results.table import labels, terminal, text

__all__ = ["publish_results", "publish_summary", "publish_table"]


def publish_table(rows: pd.DataFrame, key: str, description: str) -> None:
    """Show a table as an artifact.

    Args:
        rows: the table.
        key: the artifact's key.
        description: what it is.
    """
    table: list[dict[str, Any]] = [
        {str(k): None if v != v else v for k, v in row.items()}  # JSON has no NaN
        for row in rows.to_dict("records")
    ]
    create_table_artifact(table=table, key=key, description=description)


def publish_results(root: Path) -> None:
    """Show the verdict, the table and every active configuration's samples.

    Args:
        params: says which configurations are active.
        root: the workspace.
    """
    rows = pd.read_csv(root / TABLE)
    verdict = (root / VERDICT).read_text(encoding="utf-8")
    create_markdown_artifact(verdict, key="verdict", description="which model is better")
    publish_table(
        rows[terminal()].rename(columns=labels()),
        "results",
        "distances of the active configurations",
    )
    for configuration in active_configurations(
        YAML(typ="safe", pure=True).load(root / "params.yaml")["active"]
    ):
        encoded = base64.b64encode(
            (root / PICTURES / f"{configuration.name}.png").read_bytes()
        ).decode()
        create_image_artifact(
            image_url=f"data:image/png;base64,{encoded}",
            key=artifact_key(f"samples-{configuration.name}"),
            description=f"samples of {configuration.name}",
        )
    get_run_logger().info(
        "\n%s\n\n%s\n\nreport: %s", verdict, text(rows), (root / REPORT).resolve().as_uri()
    )


def publish_summary(
    done: Iterable[Done], failed: Mapping[str, str], pedigree: Mapping[str, str]
) -> None:
    """Say what ran, what did not have to, how long each took, and why others failed.

    Args:
        done: the stages that ended well.
        failed: reason of each that did not.
        pedigree: commit, parameters' hash, and the like.
    """
    rows = pd.DataFrame(
        [
            {
                "stage": one.stage,
                "outcome": one.outcome,
                "seconds": round(one.seconds, 1),
                "waited": round(one.waited, 1) if one.waited >= 1 else None,
                "where": one.where,
            }
            for one in done
        ]
        + [{"stage": name, "outcome": reason} for name, reason in failed.items()],
        columns=["stage", "outcome", "seconds", "waited", "where"],
    )
    counts = rows["outcome"].value_counts()
    ran = int(counts.get("ran", 0))
    others = [f"{counts[name]} {name}" for name in ("restored", "up to date") if name in counts]
    line = f"{ran} of {len(rows)} stages were run"
    line += f", {', '.join(others)}" if others else ""
    line += f", {len(failed)} failed or left out" if failed else ""
    create_markdown_artifact(
        f"{line}\n\n{rows.to_markdown(index=False)}\n\n"
        + "\n".join(f"- {name}: `{value}`" for name, value in pedigree.items()),
        key="stages",
        description="what ran, what was cached, how long each took",
    )
    shown = rows[rows["outcome"] != "up to date"]
    table = "" if shown.empty else "\n" + shown.to_string(index=False, na_rep="")
    get_run_logger().info("%s%s", line, table)


def publish_markdown(m, k, d):
    create_markdown_artifact(m, key=k, description=d)
