"""What goes with exported weights: the run's configuration in their headers, and a card for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from videogen import __version__
from videogen.training.config import CARD, RunConfig

KEY = "videogen.training"
"""Under which a safetensors header holds the run: `{"config": ..., "versions": ...}` in JSON."""


def header(run: RunConfig[Any]) -> dict[str, str]:
    """The entry of a safetensors header that says which run made the file."""
    versions = {"videogen": __version__, "torch": torch.__version__}
    return {KEY: json.dumps({"config": run.model_dump(mode="json", by_alias=True), "versions": versions})}


def _shown(run: RunConfig[Any]) -> dict[str, Any]:
    """The configuration as it could be given again, defaults left out."""
    return run.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def write(folder: Path, run: RunConfig[Any], title: str, rows: int, parts: Sequence[str]) -> None:
    """`README.md`: what this is, what lies where, what it was trained on, and the configuration, defaults left out.

    rows   clips of the training data
    parts  lines about the exported files
    """
    s = run.settings
    sources = [source.model_dump(mode="json", exclude_defaults=True) for source in s.data.sources]
    described = "\n".join(f"- {json.dumps(source, ensure_ascii=False)}" for source in sources)
    length = f"{run.budget.steps} steps" if run.budget.steps else f"{run.budget.minutes:g} minutes"
    text = f"""---
base_model: {json.dumps(s.model)}
tags: [videogen, text-to-video]
---

# {title}

Trained on `{s.model}` with `videogen train`, recipe `{run.recipe}`, {length} of {s.data.batch_size} clips.
Weights are the run's moving average where it kept one.

{chr(10).join(parts)}

## Data

{rows} clips or pictures, from

{described}

## Configuration

```yaml
{yaml.safe_dump(_shown(run), sort_keys=False, allow_unicode=True).strip()}
```
"""
    (folder / CARD).write_text(text, encoding="utf-8")
