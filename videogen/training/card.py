"""What goes with exported weights: the run's configuration in their headers, and a card for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from videogen import __version__
from videogen.training.config import CARD, RunConfig

if TYPE_CHECKING:
    from videogen.training.feed import Feed

KEY = "videogen.training"
"""Under which a safetensors header holds the run: `{"config": ..., "versions": ...}` in JSON."""

NOUNS = {"data": "clips"}
"""What a step has of a section of data, where that has another name than the section."""


def header(run: RunConfig[Any]) -> dict[str, str]:
    """The entry of a safetensors header that says which run made the file."""
    versions = {"videogen": __version__, "torch": torch.__version__}
    return {KEY: json.dumps({"config": run.model_dump(mode="json", by_alias=True), "versions": versions})}


def _shown(run: RunConfig[Any]) -> dict[str, Any]:
    """The configuration as it could be given again, defaults left out."""
    return run.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def _described(feed: Feed) -> str:
    """How much of what a section of data holds, and where it is from."""
    sources = [source.model_dump(mode="json", exclude_defaults=True) for source in feed.data.sources]
    listed = "\n".join(f"- {json.dumps(source, ensure_ascii=False)}" for source in sources)
    return f"`settings.{feed.name}`: {feed.rows} clips or pictures, from\n\n{listed}"


def write(folder: Path, run: RunConfig[Any], title: str, feeds: Sequence[Feed], parts: Sequence[str]) -> None:
    """`README.md`: what this is, what lies where, what it was trained on, and the configuration, defaults left out.

    feeds  all training data
    parts  lines about the exported files
    """
    s = run.settings
    batch = " and ".join(f"{feed.data.batch_size} {NOUNS.get(feed.name, feed.name)}" for feed in feeds)
    described = "\n\n".join(map(_described, feeds))
    length = f"{run.budget.steps} steps" if run.budget.steps else f"{run.budget.minutes:g} minutes"
    text = f"""---
base_model: {json.dumps(s.model)}
tags: [videogen, text-to-video]
---

# {title}

Trained on `{s.model}` with `videogen train`, recipe `{run.recipe}`, {length} of {batch}.
Weights are the run's moving average where it kept one.

{chr(10).join(parts)}

## Data

{described}

## Configuration

```yaml
{yaml.safe_dump(_shown(run), sort_keys=False, allow_unicode=True).strip()}
```
"""
    (folder / CARD).write_text(text, encoding="utf-8")
