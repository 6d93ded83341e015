"""What a run of the script leaves for the pages: on which GPU, when, with which versions, how every fact came out."""

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

NOT_COLUMNS = ("step", "name", "ok", "table")


def write(out: Path, lines: Sequence[Mapping[str, Any]]) -> Path | None:
    """Writes OUT/gpu-DATE.json of the lines of a run; nothing where no GPU was found."""
    gpu = next((line for line in lines if line["step"] == "facts" and line["name"] == "device" and line["ok"]), None)
    if gpu is None:
        return None
    now = datetime.datetime.now(datetime.UTC)
    answer = summary(lines, gpu, now)
    path = out / f"gpu-{now:%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
    return path


def summary(lines: Sequence[Mapping[str, Any]], gpu: Mapping[str, Any], now: datetime.datetime) -> dict[str, Any]:
    """The file's content."""
    versions = [line["versions"] for line in lines if line["step"] == "facts" and "versions" in line]
    steps: dict[str, dict[str, bool]] = {}
    for line in lines:
        facts = steps.setdefault(line["step"], {})
        facts[line["name"]] = facts.get(line["name"], True) and line["ok"]
    rows: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        if line["ok"] and "table" in line:
            columns = {key: value for key, value in line.items() if key not in NOT_COLUMNS}
            rows.setdefault(line["table"], []).append(columns)
    return {
        "when": f"{now:%Y-%m-%d}",
        "gpu": gpu["gpu"],
        "versions": {name: version for one in versions for name, version in one.items()},
        "failures": [dict(line) for line in lines if not line["ok"]],
        "steps": steps,
        "rows": rows,
    }
