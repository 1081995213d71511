"""The training loop: one explicit generator that yields the result of each epoch."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from segmed.errors import TrainingError, UsageError
from segmed.manifest import data_hash
from segmed.manifest.schema import Manifest
from segmed.plan import Plan, plan_hash
from segmed.training.budget import Budget
from segmed.training.checkpoint import LAST, remove_leftovers
from segmed.training.clock import Clock
from segmed.training.compiling import settle_compilation
from segmed.training.conditions import check_request, chosen_algorithms, require_deterministic
from segmed.training.data import load_shared, norms_of, warn_of_losses
from segmed.training.device import Device, choose_device
from segmed.training.distributed import ProcessGroup, join_process_group
from segmed.training.finish import PACKAGE, packaged
from segmed.training.first_stage import stage_identity
from segmed.training.held_out import HeldOut, is_best, is_patience_over
from segmed.training.interrupt import StopWish, stop_on_signals
from segmed.training.memory import (
    estimate_step_bytes,
    explained_memory_errors,
    peak_memory_mb,
    require_memory,
)
from segmed.training.pace import TIMED_STEPS, Pace, Scoring, settle_pace
from segmed.training.phases import STEP_PHASES
from segmed.training.run_files import RunFiles
from segmed.training.settings import EpochResult, FitRequest, Settings
from segmed.training.stepping import Steps, make_steps
from segmed.training.trainer import Trainer
from segmed.training.validation import Validation
from segmed.training.weights import origin_of, start_from

log = logging.getLogger(__name__)

_TALLY = ("steps", "loss", "data", *STEP_PHASES, "graph", "checkpoint")
"""Running sums of the epoch under way."""


def fit(
    manifest: Manifest,
    plan: Plan,
    *,
    architecture: str,
    fold: int,
    budget: Budget,
    out_dir: Path,
    settings: Settings = Settings(),
    on_prepared: Callable[[int, int], None] | None = None,
) -> Iterator[EpochResult]:
    """Train one architecture on one fold, and yield a result after each epoch.

    A generator: nothing is trained until its results are consumed, as `segmed.train` does. Writes
    into `out_dir`: `last.ckpt` (after every epoch and every few minutes), `best.ckpt` (the epoch of
    best validation Dice), `history.jsonl` (a line an epoch), and at the end `package/` of the last
    weights, not the best ones: an epoch picked on the cases that are reported flatters.

    Args:
        manifest: The image set.
        plan: The plan made for it.
        architecture: One of `list_models()`.
        fold: Fold whose cases are held out; the others are trained on.
        budget: Time or epochs. Time counts once the cases are prepared.
        out_dir: Folder of this run.
        settings: Device, seed, resume and the like.
        on_prepared: Called with cases prepared and cases in all, before the budget starts.

    Yields:
        One result an epoch.

    Raises:
        UsageError: Unknown architecture or fold, or a budget too short for a few steps.
        TrainingError: NaN loss, out of memory, full disk, or a checkpoint of another run.
        ManifestError: A case cannot be read.
        KeyboardInterrupt: Stopped by Ctrl-C or SIGTERM, after saving.
    """
    clock = Clock(budget.clock)
    check_request(manifest, plan, architecture, fold, settings.first_stage)
    device = choose_device(settings.device)
    with ExitStack() as stack:
        process_group = stack.enter_context(join_process_group(device))
        stack.enter_context(chosen_algorithms(device, same=settings.deterministic))
        wish = stack.enter_context(stop_on_signals())
        stack.enter_context(explained_memory_errors(plan, batch_size=plan.recipe.batch_size))
        run = _Run.start(
            manifest,
            plan,
            FitRequest(architecture, fold, budget, out_dir, settings, on_prepared),
            device=device,
            process_group=process_group,
            clock=clock,
        )
        stack.callback(run.files.close)
        clock.begin()
        yield from run.epochs(wish)
        if run.step == 0:
            raise UsageError(
                f"the budget ended before the first step of {architecture}: nothing was trained "
                "and no package is written; give a longer --budget"
            )
        if process_group.leads and not (run.is_reused and (out_dir / PACKAGE).is_dir()):
            run.files.finish()
            made = {**run.files.identity, "budget": asdict(budget), **run.norms}
            made |= origin_of(settings.weights)
            package = packaged(run.trainer, manifest, run.history, made, settings.first_stage)
            package.save(out_dir / PACKAGE)
        process_group.wait()  # the package is there for all


@dataclass
class _Run:
    """The state of one call of `fit`."""

    job: FitRequest
    plan: Plan
    trainer: Trainer
    steps: Steps
    held_out: HeldOut
    files: RunFiles
    device: Device
    process_group: ProcessGroup
    clock: Clock
    pace: Pace
    step: int = 0
    progress: float = 0.0
    history: list[EpochResult] = field(default_factory=list)
    tally: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_TALLY, 0.0))
    closing_s: float = 0.0
    fastest_s: float = math.inf
    is_finished: bool = False
    is_reused: bool = False
    norms: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def start(
        cls,
        manifest: Manifest,
        plan: Plan,
        job: FitRequest,
        device: Device,
        process_group: ProcessGroup,
        clock: Clock,
    ) -> _Run:
        """Prepare cases and network, or take over a checkpoint."""
        settings, maps = job.settings, job.settings.label_maps
        inside, held_out = manifest.split(job.fold)
        name, batch_size = job.architecture, plan.recipe.batch_size
        need = estimate_step_bytes(name, plan, batch_size=batch_size, device=device)
        room = require_memory(need, device, plan, batch_size=batch_size)
        cache_dir = settings.cache_dir or job.out_dir.parent / "cache"
        ready = job.preparation_of(len(process_group.part_of([*inside, *held_out])))
        cases = load_shared(
            manifest,
            [*inside, *held_out],
            plan,
            cache_dir,
            process_group=process_group,
            label_maps=maps,
            on_case=ready,
        )
        training = cases[: len(inside)]
        torch.manual_seed(settings.seed)
        trainer = Trainer(name, plan, device=device, process_group=process_group)
        require_deterministic(trainer.network, name, is_cuda=device.is_cuda)
        trainer.start_outputs(training, seed=settings.seed)
        run = cls(
            job=job,
            plan=plan,
            trainer=trainer,
            steps=make_steps(
                trainer, training, process_group=process_group, seed=settings.seed, room=room
            ),
            held_out=HeldOut(cases[len(inside) :], plan, device, process_group),
            files=RunFiles(
                job.out_dir,
                {
                    "architecture": job.architecture,
                    "fold": job.fold,
                    "seed": settings.seed,
                    "plan_hash": plan_hash(plan),
                    "data_hash": data_hash(manifest, inside),
                    **process_group.identity,
                    **stage_identity(settings.first_stage),
                },
                job.budget,
                settings.checkpoint_minutes,
                device.torch_device,
            ),
            device=device,
            process_group=process_group,
            clock=clock,
            pace=Pace(plan.recipe.iterations_per_epoch, len(held_out)),
            norms=norms_of(manifest, inside, plan, cache_dir, maps) if process_group.leads else {},
        )
        log.info("training %s fold %d on %s", job.architecture, job.fold, device.why)
        if process_group.leads:
            if process_group.size > 1:
                log.info("%d processes: %d patches each a step", process_group.size, batch_size)
            warn_of_losses(run.norms, plan.preprocessing.spacing_mm)
            remove_leftovers(job.out_dir)
        if process_group.agree(settings.resume and (job.out_dir / LAST).exists()):
            run._resume()
        elif settings.weights is not None:
            start_from(settings.weights, trainer.network, plan)
        process_group.require_same(trainer.checksum() + run.step, "weights")
        return run

    def epochs(self, wish: StopWish) -> Iterator[EpochResult]:
        """Train until the budget is spent."""
        self.progress = self.process_group.agree(self._progress())
        if self.is_finished or self.progress >= 1.0:
            log.info("the budget is already spent: nothing left to train")
            self.is_reused = True
            return
        # One process stops at once; of several none may leave the others waiting.
        with nullcontext() if self.process_group.is_joined else wish.at_once():
            settle_compilation(
                self.trainer,
                self.job.settings.compile,
                self.job.budget,
                progress=self.progress,
                step=self.step,
                process_group=self.process_group,
            )
        timed = self.step + TIMED_STEPS
        works = self.steps.works(self.step)
        waits_since = time.monotonic()
        for work in works:
            self.tally["data"] += time.monotonic() - waits_since
            stops = self._take_step(work, wish)
            spent = self.progress >= 1.0
            if self.step == timed or (spent and self.step < timed):
                self._settle_pace()
            ends_epoch = self.step % self.pace.steps == 0
            if ends_epoch or spent:
                yield self._end_epoch(wish, is_last=spent)
            if self.is_finished:
                break
            if stops:
                self._save()
                self.process_group.wait()  # torchrun ends all as soon as one has ended
                who = wish.signal_name or "a signal to another process"
                raise KeyboardInterrupt(f"stopped by {who} after step {self.step}")
            if not ends_epoch and self.files.are_due:
                self._save()
            waits_since = time.monotonic()
        works.close()  # type: ignore[attr-defined]  # a generator has it

    def _progress(self) -> float:
        """Share of the budget spent, keeping time aside for the last validation."""
        return self.job.budget.progress(
            elapsed_s=self.clock.elapsed_s() + self.closing_s + self.pace.scoring_s,
            step=self.step,
            steps_per_epoch=self.plan.recipe.iterations_per_epoch,
        )

    def _take_step(self, work: Any, wish: StopWish) -> bool:
        """Take a step, and learn how much of the budget is spent; whether a process is to stop."""
        begin = time.monotonic()
        shared = self.trainer.shared
        if shared is None:
            self.progress = self._progress()
        else:
            shared.say(progress=self._progress(), stops=bool(wish))
        loss = self.steps.take(work, step=self.step, progress=self.progress)
        self._count(loss, work.case_ids)
        self.step += 1
        self.fastest_s = min(self.fastest_s, time.monotonic() - begin)
        self.tally["steps"] += 1
        said, stops = (self._progress(), bool(wish)) if shared is None else shared.heard()
        # Epochs are counted alike everywhere; time is that of the first process.
        self.progress = self._progress() if self.job.budget.seconds is None else said
        return stops

    def _count(self, loss: float, case_ids: Sequence[str] = ()) -> None:
        """Add up losses that became known, and the seconds of their phases."""
        if not math.isfinite(loss):
            cases = f" with cases {', '.join(case_ids)}" if case_ids else ""
            raise TrainingError(
                f"the loss is {loss} at or shortly before step {self.step}{cases}; check the "
                "cases (segmed manifest check), or lower the learning rate in the plan"
            )
        self.tally["loss"] += loss
        for phase, seconds in self.steps.phases().items():
            self.tally[phase] += seconds

    def _settle_pace(self) -> None:
        """Share out the budget; one that is too short is refused before it is spent."""
        self.pace = settle_pace(
            self.plan,
            self.held_out.cases,
            self.job.budget,
            step_s=self.process_group.agree(self.fastest_s),
            spent_s=self.process_group.agree(self.clock.elapsed_s()),
            scoring=Scoring(
                self.job.settings.validation_share,
                self.job.settings.is_scored,
                self.process_group.size,
            ),
            is_resumed=bool(self.history),
        )
        self.pace = replace(self.pace, steps=round(self.process_group.agree(self.pace.steps)))
        self.closing_s = self.closing_s or self.pace.closing_s

    def _end_epoch(self, wish: StopWish, *, is_last: bool) -> EpochResult:
        self._count(self.steps.flush())
        begin = time.monotonic()
        found, number = None, 0
        if self.held_out.cases and (is_last or self._may_validate()):
            found, number = self._validate(wish, is_full=is_last)
        steps = max(self.tally["steps"], 1.0)
        result = EpochResult(
            epoch=len(self.history) + 1,
            step=self.step,
            train_loss=self.tally["loss"] / steps,
            val_loss=found.loss if found else None,
            val_dice=found.dice if found else {},
            learning_rate=self.trainer.rate,
            seconds=self.clock.elapsed_s(),
            phases_s={
                "data": self.tally["data"],
                **{phase: self.tally[phase] for phase in STEP_PHASES},
                **({"graph": self.tally["graph"]} if self.tally["graph"] else {}),
                "validation": time.monotonic() - begin,
                "checkpoint": self.tally["checkpoint"],
            },
            peak_memory_mb=peak_memory_mb(self.device),
            val_cases=number,
            sample_dice=found.sample_dice if found else None,
        )
        is_ahead = is_best(self.history, result)
        self.is_finished = is_last or is_patience_over(
            [*self.history, result], self.job.settings.patience
        )
        if self.is_finished and 0 < number < self.pace.num_validated:  # patience: it is the last
            found, number = self._validate(wish, is_full=True)
            result = replace(
                result, val_loss=found.loss, val_dice=found.dice, val_cases=number,
                seconds=self.clock.elapsed_s(),
            )  # fmt: skip
        self.history.append(result)
        self.tally = dict.fromkeys(_TALLY, 0.0)
        if is_ahead or self.is_finished or not self.files.are_fresh:
            with self.clock.unpaid():
                self._save(is_best=is_ahead)
        return result

    def _validate(self, wish: StopWish, *, is_full: bool) -> tuple[Validation, int]:
        """Validate on all cases that the time affords, or on a sample; with their number."""
        chosen = self.held_out.chosen(self.pace, is_full=is_full)
        with self.clock.unpaid() as took:
            found = self.held_out.measure(self.trainer, chosen, wish, self._save)
        number = len(chosen[0])
        self.held_out.paid(took(), number)
        closing_s = 1.1 * self.held_out.cost_s(self.pace.num_validated)
        self.closing_s = closing_s if self.clock.kind == "wall" else 0.0
        return found, number

    def _may_validate(self) -> bool:
        """Return whether this epoch's validation leaves the time to the training."""
        if self.job.budget.seconds is None:
            return True
        allowed_s = self.job.settings.validation_share * self.clock.elapsed_s()
        return self.held_out.leaves_time(self.pace, allowed_s)

    def _save(self, *, is_best: bool = False) -> None:
        if not self.process_group.leads:
            return
        self.tally["checkpoint"] += self.files.save(
            self.trainer,
            step=self.step,
            elapsed_s=self.clock.elapsed_s(),
            is_finished=self.is_finished,
            history=self.history,
            tally=self.tally,
            unread=self.steps.unread,
            is_best=is_best,
        )

    def _resume(self) -> None:
        checkpoint, self.history = self.files.load(self.trainer)
        self.step = checkpoint.step
        self.tally |= checkpoint.tally
        self.clock.before_s = checkpoint.elapsed_s
        self.held_out.recall(self.history)
        self.is_finished = self.files.is_spent(checkpoint)
        log.info("resumed after step %d, %.0f s into the budget", self.step, checkpoint.elapsed_s)
