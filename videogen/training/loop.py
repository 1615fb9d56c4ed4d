"""The one training loop. What differs between trainings is a `Recipe`; how long it runs, a `Budget`.

A run under a step budget is a function of its configuration: interrupted and resumed, it gives the same weights bit for bit (processor,
fixed threads). Under a time budget the number of steps depends on the machine, each step's draws do not.
"""

import json
import math
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import accelerate
import torch
from torch import Tensor, nn

from videogen.errors import InputError
from videogen.files import replacing
from videogen.training import checkpoints
from videogen.training.average import Average
from videogen.training.config import RunConfig, difference
from videogen.training.muon import Muon, suits_muon
from videogen.training.recipe import Draw, Recipe, Thunk


def rate(progress: float, warmup: float) -> float:
    """The share of the full learning rate at `progress` (0 to 1): linear over `warmup`, then half a cosine down to 0."""
    if progress < warmup:
        return progress / warmup
    return 0.5 + 0.5 * math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup)))


class Root(nn.Module):
    """All that trains, under one forward: it calls the thunk, which may call any part any number of times."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, thunk: Thunk) -> dict[str, Tensor]:
        """The thunk's losses."""
        return thunk()


class Loop:
    """One run: `Loop(config, recipe).run(resume)`."""

    def __init__(self, config: RunConfig[Any], recipe: Recipe) -> None:
        self.config, self.recipe = config, recipe
        # Without this word accelerate takes several launched processes on a processor for as many runs by themselves.
        self.accelerator = accelerate.Accelerator(cpu=not torch.accelerator.is_available())
        if config.threads:
            torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.groups = {name: list(parameters) for name, parameters in recipe.prepare(self.accelerator.device).items()}
        self._freeze()
        trained = {parameter for group in self.groups.values() for parameter in group}
        self.trained = {name: p for name, p in recipe.root.named_parameters() if p in trained}
        self.optimizers = self._optimizers()
        self.average = Average(self.trained, config.optimization.average)
        self.wrapped: nn.Module = Root(recipe.root)
        if self.accelerator.num_processes > 1:
            # With several groups a loss reaches only some of the parameters, and DDP must be told to look.
            several = accelerate.DistributedDataParallelKwargs(find_unused_parameters=len(self.groups) > 1)
            self.accelerator.ddp_handler = several
            self.wrapped = self.accelerator.prepare_model(self.wrapped)
        self.step, self.seconds = 0, 0.0
        self._stop = False
        self._silent: set[str] = set()

    def _freeze(self) -> None:
        trained = {parameter for group in self.groups.values() for parameter in group}
        for parameter in self.recipe.root.parameters():
            parameter.requires_grad_(parameter in trained)

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """One or two optimizers a group, titled `GROUP.muon` and `GROUP.adamw`."""
        settings = self.config.optimization
        suited = suits_muon(self.recipe.root)
        optimizers: dict[str, torch.optim.Optimizer] = {}
        for name, parameters in self.groups.items():
            if matrices := [p for p in parameters if p in suited]:
                optimizers[f"{name}.muon"] = Muon(matrices, settings.muon, weight_decay=settings.weight_decay)
            if rest := [p for p in parameters if p not in suited]:
                optimizers[f"{name}.adamw"] = torch.optim.AdamW(
                    rest, settings.adamw, betas=settings.betas, weight_decay=settings.weight_decay
                )
        for title, optimizer in optimizers.items():
            for group in optimizer.param_groups:
                group["full"] = group["lr"] * settings.shares.get(title.rpartition(".")[0], 1.0)
        return optimizers

    def run(self, resume: str | None = None) -> Path:
        """Train until the budget is spent or a signal comes; return the last checkpoint. Exports at the end of the budget."""
        out = self.config.out
        if resume:
            self._restore(checkpoints.find(out, resume))
        elif checkpoints.complete(out):
            raise InputError(f"{out} holds an earlier run; go on with --resume latest, or give another out=FOLDER")
        out.mkdir(parents=True, exist_ok=True)
        with self._signals(), (out / "log.jsonl" if self._main else Path(os.devnull)).open("a") as log:
            for batch in self.recipe.batches(self._draws()):
                self._advance(batch, log)
            self._report(log, {"judged": self._judge()} if self._done and self._main else {})
        last = self._save()
        if self._done and self.config.export and self._main:
            self._export(self.config.export)
        return last

    @property
    def _main(self) -> bool:
        return self.accelerator.is_main_process

    @property
    def progress(self) -> float:
        """The spent share of the budget."""
        budget = self.config.budget
        return min(1.0, self.step / budget.steps if budget.steps else self.seconds / (60 * (budget.minutes or 1)))

    @property
    def _done(self) -> bool:
        return self.progress >= 1

    def _draws(self) -> Iterator[Draw]:
        """The draws of the steps to come; ends with the budget or a signal. Processes agree on both: the first one's word counts."""
        while True:
            began = time.monotonic()
            shared = torch.tensor([self.seconds, float(self._stop)], dtype=torch.float64)
            if self.accelerator.num_processes > 1:
                shared = accelerate.utils.broadcast(shared.to(self.accelerator.device, torch.float32)).double().cpu()
            self.seconds = float(shared[0])
            if shared[1] or self._done:
                return
            rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
            draw = Draw(self.config.seed, self.step, self.progress, rank, ranks)
            torch.manual_seed(draw.number(f"process {rank}"))  # for what draws without a generator, as dropout does
            yield draw
            self.seconds += time.monotonic() - began

    def _advance(self, batch: Any, log: Any) -> None:
        """One step: every loss of the batch, then whatever is due."""
        share = rate(self.progress, self.config.optimization.warmup)
        figures: dict[str, Tensor] = {}
        for group, thunk in self.recipe.losses(batch):
            device, half = self.accelerator.device.type, self.config.precision == "bfloat16"
            with torch.autocast(device, torch.bfloat16, enabled=half):
                losses = self.wrapped(thunk)
            if not torch.isfinite(losses["loss"]):
                raise InputError(
                    f"the loss of {group} is not finite at step {self.step}; the last checkpoint is untouched"
                )
            self.accelerator.backward(losses["loss"])
            figures |= {f"{group}.{name}": value.detach() for name, value in losses.items()}
            figures[f"{group}.norm"] = self._update(group, share)
        self.average.update(self.step)
        self.step += 1
        every = self.config.every
        if self.step % every.log == 0 or self.step == 1:
            self._report(log, {name: float(value) for name, value in figures.items()} | {"rate": share})
        if every.judge and self.step % every.judge == 0 and self._main:
            self._report(log, {"judged": self._judge()})
        if every.checkpoint and self.step % every.checkpoint == 0:
            self._save()

    def _update(self, group: str, share: float) -> Tensor:
        """Clip the gradients of "a" or "a+b", step those groups at `share` of their rates; return the norm before clipping."""
        named = group.split("+")
        parameters = [parameter for name in named for parameter in self.groups[name]]
        if self.step == 0:
            members = set(parameters)
            self._silent |= {name for name, p in self.trained.items() if p.grad is None and p in members}
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.config.optimization.clip)
        for title, optimizer in self.optimizers.items():
            if title.rpartition(".")[0] in named:
                for settings in optimizer.param_groups:
                    settings["lr"] = settings["full"] * share
                optimizer.step()
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        return norm

    def _report(self, log: Any, figures: dict[str, Any]) -> None:
        if not self._main or not figures:
            return
        if self._silent:
            figures, self._silent = figures | {"without gradient": sorted(self._silent)}, set()
        line = {"step": self.step, "seconds": round(self.seconds, 1), "progress": round(self.progress, 4)} | figures
        log.write(json.dumps(line) + "\n")
        log.flush()
        told = {name: value for name, value in line.items() if name.endswith(".loss") or name == "judged"}
        print(f"step {self.step}, {self.progress:.1%} of the budget: {told or line}", file=sys.stderr)

    def _judge(self) -> dict[str, float]:
        with self.average.in_place(), torch.no_grad():
            return self.recipe.judge()

    def _export(self, folder: Path) -> None:
        """Each part that the recipe writes (a folder or a file) takes its place in `folder` whole; other parts there stay."""
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as beside, self.average.in_place():
            self.recipe.export(Path(beside))
            for part in sorted(Path(beside).iterdir()):
                with replacing(folder / part.name) as place:
                    part.rename(place)

    def _save(self) -> Path:
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "config": self.config.model_dump(mode="json"),
            "versions": {"torch": torch.__version__, "accelerate": accelerate.__version__},
        }
        names: dict[Tensor, str] = {parameter: name for name, parameter in self.trained.items()}
        if self._main:
            checkpoint = checkpoints.Checkpoint(
                {name: p.detach() for name, p in self.trained.items()},
                self.average.shadow,
                checkpoints.optimizer_tensors(self.optimizers, names),
                state,
            )
            checkpoints.write(self.config.out, checkpoint, self.config.checkpoints_total_limit)
        self.accelerator.wait_for_everyone()
        return self.config.out / f"checkpoint-{state['step']}"

    @torch.no_grad()
    def _restore(self, folder: Path) -> None:
        checkpoint = checkpoints.read(folder)
        changed = difference(checkpoint.state["config"], self.config.model_dump(mode="json"))
        if changed:
            raise InputError(
                f"{folder} was made with another configuration: {'; '.join(changed)}; accept=[KEY, ...] allows it"
            )
        if checkpoint.weights.keys() != self.trained.keys():
            odd = sorted(checkpoint.weights.keys() ^ self.trained.keys())[0]
            raise InputError(f"{folder} does not fit this recipe: {odd} is in one and not in the other")
        for name, parameter in self.trained.items():
            parameter.copy_(checkpoint.weights[name])
            self.average.shadow[name].copy_(checkpoint.average[name])
        names: dict[Tensor, str] = {parameter: name for name, parameter in self.trained.items()}
        checkpoints.restore_optimizers(self.optimizers, names, checkpoint.optimizer)
        self.step, self.seconds = checkpoint.state["step"], checkpoint.state["seconds"]
        if self._main:
            self._forget_after(self.step)

    def _forget_after(self, step: int) -> None:
        """Drop what the log says of steps that the checkpoint does not have."""
        path = self.config.out / "log.jsonl"
        if path.is_file():
            kept = [line for line in path.read_text().splitlines() if line and json.loads(line)["step"] <= step]
            with replacing(path) as beside:
                beside.write_text("".join(line + "\n" for line in kept))

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Within, Ctrl-C and SIGTERM end the run after the step in hand, with a checkpoint. Only the main thread can hear them."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(*_: object) -> None:
            self._stop = True

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
