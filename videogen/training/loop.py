"""The one training loop. What differs between trainings is a `Recipe`; how long it runs, a `Budget`.

A run under a step budget is a function of its configuration: interrupted and resumed, it gives the same weights bit for bit (processor,
fixed threads). Under a time budget the number of steps depends on the machine, each step's draws do not.
"""

import contextlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import accelerate
import torch
from torch import Tensor, nn

from videogen.applied import as_written, compile_blocks, recompute_blocks
from videogen.errors import InputError
from videogen.files import replacing
from videogen.training import checkpoints, shards
from videogen.training.average import Average
from videogen.training.config import RunConfig, accepted, check_export, check_folders, same_origin
from videogen.training.diagnosis import first_bad, keys_of, size_of
from videogen.training.optimizers import optimizers_of, set_rate
from videogen.training.processes import accelerator_of, all_keys, all_of, mean_of, refuse_silent, wrap
from videogen.training.progress import Journal, Pace
from videogen.training.recipe import Draw, Founded, Recipe, Shown, Thunk
from videogen.training.schedules import rate
from videogen.training.signals import heard

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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
        check_folders(config)
        self.config, self.recipe = config, recipe
        if config.every.validate_ and not isinstance(recipe, Shown):
            raise InputError(f"every.validate: the recipe {config.recipe} makes nothing to be looked at; set it to 0")
        self.accelerator = accelerator_of()
        if config.threads:
            torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        groups = {name: list(parameters) for name, parameters in recipe.prepare(self.accelerator.device).items()}
        self.origin = recipe.origin() if isinstance(recipe, Founded) else {}
        self.wrapped: nn.Module = Root(recipe.root)
        self.groups = self._placed(groups)
        trained = {parameter for group in self.groups.values() for parameter in group}
        self.trained = {name: p for name, p in recipe.root.named_parameters() if p in trained}
        self.optimizers = optimizers_of(self.groups, recipe.root, config.optimization)
        self.average = Average(self.trained, config.optimization.average)
        self.scaler = torch.amp.GradScaler(self.accelerator.device.type, enabled=config.precision == "float16")
        self.step, self.seconds = 0, 0.0
        self.saved: Path | None = None
        self._saved_seconds = 0.0
        self._stop = False
        self._silent: set[str] = set()

    def _placed(self, groups: dict[str, list[nn.Parameter]]) -> dict[str, list[nn.Parameter]]:
        """The groups' parameters once all others are frozen and the root is what the configuration asks for: recomputed, compiled, spread."""
        config, root = self.config, self.recipe.root
        trained = {parameter for group in groups.values() for parameter in group}
        for parameter in root.parameters():
            parameter.requires_grad_(parameter in trained)
        if config.gradient_checkpointing:
            recompute_blocks(root)
        if config.compile:
            compile_blocks(root)
        names = {parameter: name for name, parameter in root.named_parameters()}
        # With several groups a loss reaches only some of the parameters, and DDP must be told to look.
        self.wrapped = wrap(self.wrapped, self.accelerator, sharded=config.shards, several=len(groups) > 1)
        now = dict(root.named_parameters())
        return {group: [now[names[parameter]] for parameter in parameters] for group, parameters in groups.items()}

    def run(self, resume: str | None = None) -> Path:
        """Train until the budget is spent, the batches end or a signal comes; return the last checkpoint. Exports at the end of the budget."""
        out = self.config.out
        if resume and not out.is_dir():
            checkpoints.find(out, resume)  # which is said before a folder is made
        with checkpoints.claimed(out) if self._main else contextlib.nullcontext():
            self.accelerator.wait_for_everyone()  # the first may have put a checkpoint back in its place
            self._begin(resume)
            self.accelerator.wait_for_everyone()
            with checkpoints.cut_short(out):
                with heard(self._end), self._journal() as self.journal:
                    last = self._train()
                if self._done and self.config.export:
                    self._export(self.config.export)
            self.accelerator.wait_for_everyone()
        return last

    def _begin(self, resume: str | None) -> None:
        out = self.config.out
        if resume:
            self._restore(checkpoints.find(out, resume))
        if (
            self._main
            and checkpoints.complete(out)
            and (self.saved is None or self.saved.parent.resolve() != out.resolve())
        ):
            raise InputError(f"{out} holds an earlier run; go on with --resume latest, or give another out=FOLDER")
        if self._main and not resume:
            check_export(self.config)

    def _train(self) -> Path:
        """All steps, then the last checkpoint, and only then what is judged and shown at the end: should that fail, no step is lost."""
        self.pace = Pace(self.progress)
        self._make_up()
        batches = self.recipe.batches(self._draws())
        parts = self.config.accumulate
        while all_of(self.accelerator, len(batch := list(islice(batches, parts))) == parts):
            self._advance(batch)
        last = self._save()
        if self._done:
            self._judge()
            if self.config.every.validate_ and not self._shows(self.step):
                self._show()
        elif not self._stop:
            self._tell({"ended": "there are no more batches"})
        return last

    def _make_up(self) -> None:
        """What was due after the checkpoint from which the run goes on, where the run was killed before it was told."""
        told = None if self.journal is None else self.journal.told(self.step)
        shown = (self.config.out / f"validation-{self.step}").exists()
        if self._judges(self.step) and not all_of(self.accelerator, told is None or "judged" in told):
            self._judge()
        if self._shows(self.step) and not all_of(self.accelerator, told is None or ("validated" in told and shown)):
            self._show()

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
            self.seconds, self._stop = float(shared[0]), bool(shared[1])
            if self._stop or self._done:
                return
            for part in range(self.config.accumulate):
                draw = self._draw(part)
                self._seed(draw)
                yield draw
            self.seconds += time.monotonic() - began

    def _draw(self, part: int) -> Draw:
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        return Draw(self.config.seed, self.step, self.progress, rank, ranks, part, self.config.accumulate)

    def _seed(self, draw: Draw) -> None:
        """For what draws without a generator, as dropout does."""
        torch.manual_seed(draw.number(f"process {draw.rank}" + (f" part {draw.part}" if draw.part else "")))

    def _advance(self, batches: Sequence[Any]) -> None:
        """One step: every loss of its micro-batches, then whatever is due."""
        share = rate(self.progress, self.config.warmup, self.config.optimization.schedule)
        figures: dict[str, Tensor] = {}
        for round_ in zip(*map(self.recipe.losses, batches), strict=True):
            group, thunks = round_[0][0], [thunk for _, thunk in round_]
            losses = [self._backward(thunk, last=thunk is thunks[-1]) for thunk in thunks]
            norm = self._update(group, share, losses, batches, thunks)
            means = {name: torch.stack([one[name] for one in losses]).mean() for name in losses[0]}
            figures |= {f"{group}.{name}": value for name, value in means.items()} | {f"{group}.norm": norm}
        self.average.update(self.step)
        self.step += 1
        self.pace.items += sum(size_of(batch) for batch in batches) * self.accelerator.num_processes
        every = self.config.every
        if self.step % every.log == 0 or self.step == 1:
            self._tell(mean_of(self.accelerator, figures) | {"rate": share} | self.pace.figures(self.progress))
        judges, shows = self._judges(self.step), self._shows(self.step)
        # What is judged and shown is so after a checkpoint: should that fail, no step is lost.
        if self._done or judges or shows or (every.checkpoint and self.step % every.checkpoint == 0):
            self._save()
        if judges:
            self._judge()
        if shows:
            self._show()

    def _forward(self, thunk: Thunk) -> dict[str, Tensor]:
        with self._cast():
            return self.wrapped(thunk)

    def _cast(self) -> torch.autocast:
        dtype = DTYPES[self.config.precision]
        return torch.autocast(self.accelerator.device.type, dtype, enabled=dtype != torch.float32)

    def _backward(self, thunk: Thunk, *, last: bool) -> dict[str, Tensor]:
        """One thunk's losses, its gradients added up; processes exchange them with the last micro-batch."""
        # DDP's; shards are exchanged every time, which keeps them small
        waiting = getattr(self.wrapped, "no_sync", None)
        with contextlib.nullcontext() if last or waiting is None else waiting():
            losses = self._forward(thunk)
            self.scaler.scale(losses["loss"] / self.config.accumulate).backward()
        return {name: value.detach().float() for name, value in losses.items()}

    def _update(
        self, group: str, share: float, losses: list[dict[str, Tensor]], batches: Sequence[Any], thunks: list[Thunk]
    ) -> Tensor:
        """Clip the gradients of "a" or "a+b", step those groups at `share` of their rates; return the norm before clipping.

        Raises InputError where a loss or a gradient is not finite, before anything has changed. With float16 a gradient may be: then the step is
        left out, and the loss scale halved.
        """
        named = group.split("+")
        parameters = [parameter for name in named for parameter in self.groups[name]]
        if self.step == 0:
            members = set(parameters)
            self._silent |= {name for name, p in self.trained.items() if p.grad is None and p in members}
            refuse_silent(self.wrapped, self._silent)
        optimizers = [self.optimizers[title] for title in self.optimizers if title.rpartition(".")[0] in named]
        stepping = [one for one in optimizers if any(p.grad is not None for g in one.param_groups for p in g["params"])]
        for optimizer in stepping:
            self.scaler.unscale_(optimizer)
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = shards.full(torch.nn.utils.get_total_norm(gradients))
        finite = self._finite(group, norm, losses, batches, thunks)
        if finite:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.config.optimization.clip, norm)
        for optimizer in stepping if finite else ():
            set_rate(optimizer, share)
            self.scaler.step(optimizer)
        if stepping:
            self.scaler.update()
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        return norm

    def _finite(
        self, group: str, norm: Tensor, losses: list[dict[str, Tensor]], batches: Sequence[Any], thunks: list[Thunk]
    ) -> bool:
        """Whether the step may be taken. Raises InputError, which names the first bad tensor, where the run cannot go on."""
        sums = torch.stack([norm, *(one["loss"].to(norm) for one in losses)])
        if bool(torch.isfinite(sums).all()):
            return True
        bad = next((i for i, one in enumerate(losses) if not torch.isfinite(one["loss"])), None)
        # Gradients that were exchanged are bad in every process, so all of them come here and agree.
        sound = all_of(self.accelerator, bad is None) if not torch.isfinite(norm) else False
        if sound and self.scaler.is_enabled() and self.scaler.get_scale() > 1:
            return False
        part = bad or 0
        self._seed(self._draw(part))
        first = first_bad(self.recipe.root, self.trained, lambda: self._diagnosed(thunks[part]))
        what = f"the {'gradient' if bad is None else 'loss'} of {group} is not finite at step {self.step}"
        told = [what, f"the first bad tensor is {first}" if first else "all tensors of the nets are finite"]
        keys = [key for batch in batches for key in keys_of(batch)]
        if not torch.isfinite(norm):  # every process is here
            keys = all_keys(self.accelerator, keys)
        if keys:
            told.append(f"the batch was {', '.join(keys)}")
        told.append(f"{self.saved} is untouched" if self.saved else "there is no checkpoint yet")
        line = "; ".join(told)
        self._tell({"stopped": line})
        raise InputError(line)

    def _diagnosed(self, thunk: Thunk) -> Any:
        """Once more, without the exchange between processes that DDP's forward may begin."""
        with self._cast():
            return self.wrapped(thunk) if self.config.shards else thunk()

    @contextmanager
    def _journal(self) -> Iterator[Journal | None]:
        if not self._main:
            yield None
            return
        journal = Journal(self.config.out, self.step, tensorboard="tensorboard" in self.config.report_to)
        try:
            yield journal
        finally:
            journal.close()

    def _tell(self, figures: dict[str, Any]) -> None:
        if self.journal is None:
            return
        if self._silent:
            figures, self._silent = figures | {"without gradient": sorted(self._silent)}, set()
        line = {"step": self.step, "seconds": round(self.seconds, 1), "progress": round(self.progress, 4)} | figures
        self.journal.write(line)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Within, the recipe's root has the averaged weights, whole, in evaluation mode and not compiled, as shapes that come a few times would be.

        Every process must enter; one may compute.
        """
        training = {module: module.training for module in self.recipe.root.modules()}
        with self.average.in_place(), shards.whole(self.wrapped), torch.no_grad(), as_written():
            self.recipe.root.eval()
            try:
                yield
            finally:
                for module, mode in training.items():
                    module.training = mode

    @property
    def _computes(self) -> bool:
        """Whether this process judges and makes clips: the first, and with shards all alike, as each forward is theirs together."""
        return self._main or self.config.shards

    def _judge(self) -> None:
        with self._averaged():
            if self._computes:
                self._tell({"judged": self.recipe.judge()})

    def _judges(self, step: int) -> bool:
        """Whether a judgement is due on the way; at the end there is one in any case."""
        every = self.config.every.judge
        return bool(every and step and step % every == 0 and not self._done)

    def _shows(self, step: int) -> bool:
        every = self.config.every.validate_
        return bool(every and step and step % every == 0)

    def _show(self) -> None:
        """What the recipe makes to be looked at, whole or not at all, in `out/validation-N`."""
        with self._averaged():
            if self._computes and isinstance(self.recipe, Shown):
                with self._replacing(self.config.out / f"validation-{self.step}") as beside:
                    beside.mkdir()
                    figures = self.recipe.validate(beside)
                self._tell({"validated": figures})

    def _export(self, folder: Path) -> None:
        """What the recipe writes of the averaged weights, into `folder`."""
        with self._averaged():
            if self._main:
                with checkpoints.exporting(folder) as beside:
                    self.recipe.export(beside)
            elif self._computes:
                with tempfile.TemporaryDirectory() as nowhere:
                    self.recipe.export(Path(nowhere))

    @contextmanager
    def _replacing(self, path: Path) -> Iterator[Path]:
        """As `files.replacing` in the first process; what others write goes nowhere."""
        if self._main:
            with replacing(path) as beside:
                yield beside
        else:
            with tempfile.TemporaryDirectory() as beside:
                yield Path(beside) / path.name

    def _save(self) -> Path:
        """Write what a run needs to go on; nothing where it stands already, with the time that a budget of minutes counts."""
        folder = self.config.out / f"checkpoint-{self.step}"
        counted = self.config.budget.minutes is None or self._saved_seconds == self.seconds
        stands = self.saved is not None and self.saved.resolve() == folder.resolve()
        if all_of(self.accelerator, counted and stands):  # writing takes all processes, so they have to agree
            return folder
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "scaler": self.scaler.state_dict(),
            "origin": self.origin,
            "config": self.config.model_dump(mode="json", by_alias=True),
            "versions": {"torch": torch.__version__, "accelerate": accelerate.__version__},
        }
        names: dict[Tensor, str] = {parameter: name for name, parameter in self.trained.items()}
        checkpoint = checkpoints.Checkpoint(
            {name: shards.full(p.detach()) for name, p in self.trained.items()},
            {name: shards.full(shadow) for name, shadow in self.average.shadow.items()},
            checkpoints.optimizer_tensors(self.optimizers, names),
            state,
        )
        if self._main:
            checkpoints.write(self.config.out, checkpoint, self.config.checkpoints_total_limit)
        self.accelerator.wait_for_everyone()
        self.saved, self._saved_seconds = folder, self.seconds
        return folder

    @torch.no_grad()
    def _restore(self, folder: Path) -> None:
        checkpoint = checkpoints.read(folder)
        accepted(self.config, checkpoint.state.get("config", {}), folder)
        same_origin(checkpoint.state.get("origin", {}), self.origin, frozenset(self.config.accept), folder)
        shapes = {name: parameter.shape for name, parameter in self.trained.items()}
        if odd := sorted(checkpoint.weights.keys() ^ shapes.keys()):
            raise InputError(f"{folder} does not fit this recipe: {odd[0]} is in one and not in the other")
        for name, shape in shapes.items():
            if (there := checkpoint.weights[name].shape) != shape:
                raise InputError(
                    f"{folder} does not fit this recipe: {name} is {tuple(there)} there and {tuple(shape)} here"
                )
        for name, parameter in self.trained.items():
            parameter.copy_(shards.like(checkpoint.weights[name], parameter))
        for name, shadow in self.average.shadow.items():
            shadow.copy_(shards.like(checkpoint.averaged[name], shadow))
        names: dict[Tensor, str] = {parameter: name for name, parameter in self.trained.items()}
        checkpoints.restore_optimizers(self.optimizers, names, checkpoint.optimizer)
        if checkpoint.state.get("scaler"):
            self.scaler.load_state_dict(checkpoint.state["scaler"])
        self.step, self.seconds, self.saved = checkpoint.state["step"], checkpoint.state["seconds"], folder
        self._saved_seconds = self.seconds

    def _end(self) -> None:
        """After the step in hand, with a checkpoint."""
        self._stop = True
