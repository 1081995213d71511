"""Validations of one training: the cases of each, their time, and the best result so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

from segmed.plan.schema import Plan
from segmed.training.device import Device
from segmed.training.distributed import ProcessGroup
from segmed.training.interrupt import StopWish
from segmed.training.pace import Pace, sample_size, spread_out
from segmed.training.sampling import TrainingCase
from segmed.training.settings import EpochResult
from segmed.training.trainer import Trainer
from segmed.training.validation import Validation, validate


@dataclass
class HeldOut:
    """The held-out cases of a training and what was spent on them.

    The first and the last validation score all cases that the time affords, those between them a
    sample at even intervals. All of them score this sample, so that epochs can be compared by it.

    Attributes:
        cases: The prepared cases.
        plan: The plan.
        device: Device of the training.
        process_group: The processes that share out the cases.
        costs: Seconds and cases of each validation so far.
    """

    cases: Sequence[TrainingCase]
    plan: Plan
    device: Device
    process_group: ProcessGroup
    costs: list[tuple[float, int]] = field(default_factory=list)

    def chosen(self, pace: Pace, *, is_full: bool) -> tuple[list[TrainingCase], list[int]]:
        """The cases of a validation, and the places among them of the sample.

        Args:
            pace: Number of cases that the time affords.
            is_full: All of these; else the sample alone.
        """
        whole = spread_out(self.cases, pace.num_validated)
        places = spread_out(range(len(whole)), sample_size(len(whole)))
        if is_full or not self.costs:
            return whole, places
        return [whole[place] for place in places], [*range(len(places))]

    def measure(
        self,
        trainer: Trainer,
        chosen: tuple[list[TrainingCase], list[int]],
        wish: StopWish,
        save: Callable[[], None],
    ) -> Validation:
        """Validate; a signal meanwhile saves and ends, without waiting for the last case.

        Args:
            trainer: Network and averaged weights.
            chosen: From `chosen`.
            wish: Set by a signal.
            save: Writes a checkpoint.

        Raises:
            KeyboardInterrupt: A signal arrived in one of the processes.
        """
        cases, sample = chosen
        group = self.process_group
        network = trainer.evaluation_network()
        try:
            # One process stops at once; several agree on it after the case in hand.
            with nullcontext() if group.is_joined else wish.at_once():
                return validate(
                    network,
                    cases,
                    self.plan,
                    self.device,
                    sample=sample,
                    process_group=group,
                    stops=lambda: group.is_joined and bool(wish),
                )
        except KeyboardInterrupt:
            trainer.restore_training_weights()
            save()
            group.wait()
            raise
        finally:
            trainer.restore_training_weights()

    def paid(self, seconds: float, number: int) -> None:
        """Count a validation of so many cases."""
        self.costs.append((seconds, number))

    def cost_s(self, number: int) -> float:
        """Seconds that a validation of so many cases is expected to take; 0 before the first."""
        if not self.costs:
            return 0.0
        seconds, cases = self.costs[-1]
        return seconds * number / max(1, cases)

    def leaves_time(self, pace: Pace, allowed_s: float) -> bool:
        """Return whether one more validation between the first and the last stays within a time."""
        if not self.costs:
            return True
        spent = sum(seconds for seconds, _ in self.costs)
        next_s = self.cost_s(len(self.chosen(pace, is_full=False)[0]))
        return self.process_group.agree(spent + next_s <= allowed_s) > 0

    def recall(self, history: Sequence[EpochResult]) -> None:
        """Take over what the epochs of a resumed training have cost."""
        self.costs = [
            (result.phases_s["validation"], result.val_cases or len(self.cases))
            for result in history
            if result.val_dice
        ]


def is_best(history: Sequence[EpochResult], result: EpochResult) -> bool:
    """Return whether a result is better than all before."""
    return not history or result.compared_dice > max(r.compared_dice for r in history)


def is_patience_over(history: Sequence[EpochResult], patience: int) -> bool:
    """Return whether so many epochs have passed since the best validation.

    Args:
        history: The epochs so far.
        patience: Epochs; 0 for without end.
    """
    measured = [result for result in history if result.val_dice]
    if patience == 0 or not measured:
        return False
    best = max(measured, key=lambda result: result.compared_dice)
    return measured[-1].epoch - best.epoch >= patience
