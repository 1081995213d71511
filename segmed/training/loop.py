"""The training loop: one explicit generator that yields the result of each epoch."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from segmed.errors import TrainingError, UsageError
from segmed.manifest import data_hash
from segmed.manifest.schema import Manifest
from segmed.plan import Plan, plan_hash
from segmed.training.budget import Budget
from segmed.training.checkpoint import (
    BEST,
    LAST,
    Checkpoint,
    damaged,
    load_checkpoint,
    remove_leftovers,
    save_checkpoint,
    write_history,
)
from segmed.training.clock import Clock
from segmed.training.conditions import check_request, require_deterministic, same_bits
from segmed.training.data import load_cases, norms_of, warn_of_losses
from segmed.training.device import Device, choose_device
from segmed.training.distributed import ProcessGroup, join_process_group
from segmed.training.finish import PACKAGE, save_package
from segmed.training.interrupt import StopWish, stop_on_signals
from segmed.training.memory import (
    estimate_step_bytes,
    explained_memory_errors,
    peak_memory_mb,
    require_memory,
)
from segmed.training.pace import TIMED_STEPS, Pace, settle_pace, spread_out
from segmed.training.phases import STEP_PHASES
from segmed.training.sampling import TrainingCase
from segmed.training.settings import EpochResult, FitRequest, Settings
from segmed.training.stepping import Steps, make_steps
from segmed.training.trainer import Trainer
from segmed.training.validation import validate
from segmed.training.weights import start_from

log = logging.getLogger(__name__)

_TALLY = ("steps", "loss", "data", *STEP_PHASES, "graph", "checkpoint")
"""Running sums of the epoch under way."""

HISTORY = "history.jsonl"


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

    This is a generator: nothing is trained until its results are consumed, as by
    `for result in fit(...)`. `segmed.train` does that and returns the package.

    Writes into `out_dir`: `last.ckpt` (after every epoch and every few minutes), `best.ckpt` (the
    epoch of best validation Dice), `history.jsonl` (a line an epoch), and at the end `package/`
    with the weights of the last step. The last weights are packaged, not the best ones: picking
    the epoch on the cases that are reported afterwards would flatter.

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
    check_request(manifest, plan, architecture, fold)
    device = choose_device(settings.device)
    with ExitStack() as stack:
        process_group = stack.enter_context(join_process_group(device))
        stack.enter_context(same_bits(settings.deterministic))
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
        clock.begin()
        yield from run.epochs(wish)
        if run.step == 0:
            raise UsageError(
                f"the budget ended before the first step of {architecture}: nothing was trained "
                "and no package is written; give a longer --budget"
            )
        if process_group.leads and not (run.is_reused and (out_dir / PACKAGE).is_dir()):
            made = {**run.identity, "budget": asdict(budget), **run.norms}
            save_package(run.trainer, manifest, run.history, made, out_dir / PACKAGE)
        process_group.wait()  # the package is there for all


@dataclass
class _Run:
    """The state of one call of `fit`."""

    job: FitRequest
    plan: Plan
    trainer: Trainer
    steps: Steps
    held_out: list[TrainingCase]
    identity: dict[str, object]
    device: Device
    process_group: ProcessGroup
    clock: Clock
    pace: Pace
    step: int = 0
    history: list[EpochResult] = field(default_factory=list)
    tally: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_TALLY, 0.0))
    saved_at: float = field(default_factory=time.monotonic)
    closing_s: float = 0.0
    validations_s: list[float] = field(default_factory=list)
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
        settings = job.settings
        inside, held_out = manifest.split(job.fold)
        batch_size = process_group.whole_batch(plan.recipe.batch_size)
        part = batch_size // process_group.size
        name, options = job.architecture, plan.networks[job.architecture].options
        is_half = device.autocast_dtype is not None
        need = estimate_step_bytes(name, options, plan, batch_size=part, is_half=is_half)
        require_memory(need, device, plan, batch_size=part)
        cache_dir = settings.cache_dir or job.out_dir.parent / "cache"
        own = held_out if process_group.leads else []  # the first process validates for all
        ready = job.preparation_of(len(inside) + len(own))
        training = load_cases(manifest, inside, plan, cache_dir, on_case=ready)
        torch.manual_seed(settings.seed)
        trainer = Trainer(
            name, plan, device=device, process_group=process_group, compiled=settings.compile
        )
        require_deterministic(trainer.network, name, is_cuda=device.is_cuda)
        run = cls(
            job=job,
            plan=plan,
            trainer=trainer,
            steps=make_steps(trainer, training, process_group=process_group, seed=settings.seed),
            held_out=load_cases(manifest, own, plan, cache_dir, on_case=ready),
            identity={
                "architecture": job.architecture,
                "fold": job.fold,
                "seed": settings.seed,
                "plan_hash": plan_hash(plan),
                "data_hash": data_hash(manifest, inside),
            },
            device=device,
            process_group=process_group,
            clock=clock,
            pace=Pace(plan.recipe.iterations_per_epoch, len(held_out)),
            norms=norms_of(manifest, inside, plan, cache_dir) if process_group.leads else {},
        )
        log.info("training %s fold %d on %s", job.architecture, job.fold, device.why)
        if batch_size != plan.recipe.batch_size and process_group.leads:
            log.warning(
                "a step takes %d patches instead of the plan's %d, so that each of %d processes "
                "has %d",
                batch_size, plan.recipe.batch_size, process_group.size, part,
            )  # fmt: skip
        if process_group.leads:
            warn_of_losses(run.norms, plan.preprocessing.spacing_mm)
            remove_leftovers(job.out_dir)
        if settings.resume and (job.out_dir / LAST).exists():
            run._resume()
        elif settings.weights is not None:
            start_from(settings.weights, trainer.network)
        return run

    def epochs(self, wish: StopWish) -> Iterator[EpochResult]:
        """Train until the budget is spent."""
        if self.is_finished or self.process_group.agree(self._progress()) >= 1.0:
            log.info("the budget is already spent: nothing left to train")
            self.is_reused = True
            return
        timed = self.step + TIMED_STEPS
        works = self.steps.works(self.step)
        waits_since = time.monotonic()
        for work in works:
            self.tally["data"] += time.monotonic() - waits_since
            self._take_step(work)
            spent = self.process_group.agree(self._progress()) >= 1.0
            if self.step == timed or (spent and self.step < timed):
                self._settle_pace()
            ends_epoch = self.step % self.pace.steps == 0
            if ends_epoch or spent:
                yield self._end_epoch(wish, is_last=spent)
            if self.is_finished:
                break
            if self.process_group.any(bool(wish)):
                self._save(LAST)
                self.process_group.wait()  # torchrun ends all as soon as one has ended
                who = wish.signal_name or "a signal to another process"
                raise KeyboardInterrupt(f"stopped by {who} after step {self.step}")
            if not ends_epoch and self._checkpoint_is_due():
                self._save(LAST)
            waits_since = time.monotonic()
        works.close()  # type: ignore[attr-defined]  # a generator has it

    def _progress(self) -> float:
        """Share of the budget spent, keeping time aside for the last validation."""
        return self.job.budget.progress(
            elapsed_s=self.clock.elapsed_s() + self.closing_s + self.pace.scoring_s,
            step=self.step,
            steps_per_epoch=self.plan.recipe.iterations_per_epoch,
        )

    def _take_step(self, work: Any) -> None:
        begin = time.monotonic()
        progress = self.process_group.agree(self._progress())
        loss = self.steps.take(work, step=self.step, progress=progress)
        self._count(self.process_group.mean(loss), work.case_ids)
        self.step += 1
        self.fastest_s = min(self.fastest_s, time.monotonic() - begin)
        self.tally["steps"] += 1

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
            self.held_out,
            self.job.budget,
            step_s=self.process_group.agree(self.fastest_s),
            spent_s=self.process_group.agree(self.clock.elapsed_s()),
            share=self.job.settings.validation_share,
            is_scored=self.job.settings.is_scored,
            is_resumed=bool(self.history),
        )
        self.pace = replace(self.pace, steps=round(self.process_group.agree(self.pace.steps)))
        self.closing_s = self.closing_s or self.pace.closing_s

    def _end_epoch(self, wish: StopWish, *, is_last: bool) -> EpochResult:
        self._count(self.steps.flush())
        begin = time.monotonic()
        val_loss: float | None = None
        val_dice: dict[str, float] = {}
        if self.held_out and (is_last or self._may_validate()):
            with self.clock.unpaid() as took:
                val_loss, val_dice = self._validate(wish)
            self.validations_s.append(took())
            self.closing_s = 1.1 * took() if self.clock.kind == "wall" else 0.0
        steps = max(self.tally["steps"], 1.0)
        result = EpochResult(
            epoch=len(self.history) + 1,
            step=self.step,
            train_loss=self.tally["loss"] / steps,
            val_loss=val_loss,
            val_dice=val_dice,
            learning_rate=float(self.trainer.optimizer.param_groups[0]["lr"]),
            seconds=self.clock.elapsed_s(),
            phases_s={
                "data": self.tally["data"],
                **{phase: self.tally[phase] for phase in STEP_PHASES},
                **({"graph": self.tally["graph"]} if self.tally["graph"] else {}),
                "validation": time.monotonic() - begin,
                "checkpoint": self.tally["checkpoint"],
            },
            peak_memory_mb=peak_memory_mb(self.device),
        )
        is_best = not self.history or result.mean_dice > max(r.mean_dice for r in self.history)
        self.history.append(result)
        self.is_finished = self.process_group.any(is_last or self._is_patience_over())
        self.tally = dict.fromkeys(_TALLY, 0.0)
        with self.clock.unpaid():
            self._save(LAST)
            if is_best:
                self._save(BEST)
        return result

    def _validate(self, wish: StopWish) -> tuple[float, dict[str, float]]:
        """Validate; a signal meanwhile saves and ends, without waiting for the last case."""
        network = self.trainer.evaluation_network()
        try:
            with wish.at_once():
                cases = spread_out(self.held_out, self.pace.num_validated)
                return validate(network, cases, self.plan, self.device)
        except KeyboardInterrupt:
            self.trainer.restore_training_weights()
            self._save(LAST)
            raise
        finally:
            self.trainer.restore_training_weights()

    def _may_validate(self) -> bool:
        """Return whether this epoch's validation leaves the time to the training."""
        spent = self.validations_s
        if not spent or self.job.budget.seconds is None:
            return True
        return sum(spent) + spent[-1] <= self.job.settings.validation_share * self.clock.elapsed_s()

    def _save(self, name: str) -> None:
        if not self.process_group.leads:
            return
        self._count(self.steps.flush())
        begin = time.monotonic()
        records = [result.as_record() for result in self.history]
        checkpoint = Checkpoint(
            run=dict(self.identity),
            step=self.step,
            elapsed_s=self.clock.elapsed_s(),
            budget=asdict(self.job.budget),
            is_finished=self.is_finished,
            history=records,
            tally=dict(self.tally),
            **self.trainer.state(),
        )
        save_checkpoint(checkpoint, self.job.out_dir / name)
        write_history(records, self.job.out_dir / HISTORY)
        self.saved_at = time.monotonic()
        self.tally["checkpoint"] += self.saved_at - begin

    def _resume(self) -> None:
        checkpoint = load_checkpoint(self.job.out_dir / LAST, run=self.identity)
        try:
            self.trainer.load_state(vars(checkpoint))
            self.history = [EpochResult(**record) for record in checkpoint.history]
        except TrainingError:
            raise
        except (RuntimeError, KeyError, ValueError, TypeError) as error:
            why = f"it does not fit the network: {' '.join(str(error).split())[:120]}"
            raise damaged(self.job.out_dir / LAST, why) from error
        self.step = checkpoint.step
        self.tally |= checkpoint.tally
        self.clock.before_s = checkpoint.elapsed_s
        self.validations_s = [r.phases_s["validation"] for r in self.history if r.val_dice]
        self.is_finished = checkpoint.is_finished and checkpoint.budget == asdict(self.job.budget)
        log.info("resumed after step %d, %.0f s into the budget", self.step, checkpoint.elapsed_s)

    def _checkpoint_is_due(self) -> bool:
        return time.monotonic() - self.saved_at > 60 * self.job.settings.checkpoint_minutes

    def _is_patience_over(self) -> bool:
        patience = self.job.settings.patience
        measured = [result for result in self.history if result.val_dice]
        if patience == 0 or not measured:
            return False
        best = max(measured, key=lambda result: result.mean_dice)
        return measured[-1].epoch - best.epoch >= patience
