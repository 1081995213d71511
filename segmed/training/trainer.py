"""One network with its optimiser, its averaged weights and one step of training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from segmed.errors import TrainingError
from segmed.freed_memory import keep_freed_memory
from segmed.losses import make_loss
from segmed.losses.shared_batch import shared_batch
from segmed.models.fast_kernels import training_format
from segmed.plan.built import planned_network
from segmed.plan.schema import NetworkPlan, Plan, Recipe
from segmed.training.data import Batch, augment
from segmed.training.device import Device
from segmed.training.distributed import ProcessGroup
from segmed.training.gradients import SharedGradients
from segmed.training.output_bias import output_biases, start_outputs
from segmed.training.phases import StepTimer
from segmed.training.sampling import TrainingCase
from segmed.training.schedule import learning_rate


class Trainer:
    """Training state: network, optimiser and averaged weights.

    Args:
        architecture: Model name, one of the plan's networks.
        plan: The plan.
        device: Where to train.
        process_group: The processes that train together.

    Attributes:
        rate: Learning rate of the last step.
        shared: Averages the gradients of several processes; None for a process that trains alone.
    """

    def __init__(
        self,
        architecture: str,
        plan: Plan,
        *,
        device: Device,
        process_group: ProcessGroup,
    ) -> None:
        if not device.is_cuda:
            keep_freed_memory()
        self.plan = plan
        self.device = device
        self.settings: NetworkPlan = plan.networks[architecture]
        self.network = planned_network(plan, architecture, self.settings.options)
        self.network.to(device.torch_device)
        self._format = training_format(plan.spatial_dims, device.torch_device)
        self.network.to(memory_format=self._format)  # type: ignore[call-overload]  # missing from the stub
        self.loss = make_loss(
            self.settings.loss,
            num_classes=plan.num_classes,
            encoding=plan.encoding,
            checks_indices=False,  # prepared labels hold class indices alone
        ).to(device.torch_device)
        self.optimizer = make_optimizer(
            self.network, plan.recipe, self.settings.learning_rate, device=device
        )
        self.rate = self.settings.learning_rate
        self.averaged = {
            name: tensor.detach().clone()
            for name, tensor in self.network.state_dict().items()
            if plan.recipe.ema_decay > 0
        }
        self.needs_scaler = device.autocast_dtype is torch.float16
        self._scaler = torch.amp.GradScaler(device.torch_device.type, enabled=self.needs_scaler)
        self._forward: Callable[[Tensor], Any] = self.network
        self._process_group = process_group
        self.shared = (
            SharedGradients(self.network, process_group) if process_group.is_joined else None
        )
        self.timer = StepTimer(device)
        self._set_aside: dict[str, Tensor] = {}
        self._parameters = [p for p in self.network.parameters() if p.requires_grad]

    def start_outputs(self, cases: Sequence[TrainingCase], *, seed: int) -> None:
        """Start the outputs at the shares of the classes in training patches, if planned so.

        Args:
            cases: Prepared cases.
            seed: Of the patches whose voxels are counted.
        """
        if not self.plan.recipe.starts_from_shares:
            return
        start_outputs(self.network, output_biases(cases, self.plan, seed=seed))
        state = self.network.state_dict()
        for name, averaged in self.averaged.items():
            averaged.copy_(state[name])

    def step(self, batch: Batch, *, step: int, progress: float) -> Tensor:
        """Train on one batch.

        Args:
            batch: The patches.
            step: Number of the step, for the averaged weights.
            progress: Share of the budget spent, for the learning rate.

        Returns:
            The loss, a scalar on the device (not yet waited for).
        """
        self.timer.begin()
        self.set_learning_rate(progress)
        image, label = augment(batch, self.plan, self.device)
        image = self.in_memory_format(image)
        self.timer.mark()
        loss = self.update(image, label)
        self.average(self.ema_weight(step))
        self.timer.mark()
        return loss

    def set_learning_rate(self, progress: float) -> None:
        """Set the learning rate for a share of the budget that is spent."""
        self.rate = learning_rate(self.plan.recipe, self.settings.learning_rate, progress)
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(self.rate)
            else:
                group["lr"] = self.rate

    def in_memory_format(self, image: Tensor) -> Tensor:
        """A batch in the memory layout of the network's weights."""
        return image.contiguous(memory_format=self._format)

    def update(self, image: Tensor, label: Tensor) -> Tensor:
        """Forward pass, loss, backward pass, clipping and the optimiser's step.

        Args:
            image: `[B, C, *patch]`, augmented.
            label: Class indices, `[B, *patch]`.

        Returns:
            The loss, a scalar on the device (not yet waited for); the mean over the processes.
        """
        self.network.train()
        with self._autocast(), self._whole_batch():
            loss: Tensor = self.loss(self.forward(image), label)
        self.timer.mark()
        self.optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self.timer.mark()
        if self.shared is not None:
            loss = self.shared.average(loss)
        self._scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self._parameters, self.plan.recipe.gradient_clip)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        return loss.detach()

    def forward(self, image: Tensor) -> Any:
        """Logits of a batch, by the compiled network where there is one.

        What it was not compiled for, it computes uncompiled: nothing is compiled in mid-training.
        """
        if self._forward is self.network:
            return self.network(image)
        with torch.compiler.set_stance("eager_on_recompile"):
            return self._forward(image)

    def compile(self, *, backend: str | Callable[..., Any] = "inductor") -> str:
        """Compile the network for the batches of the plan, by one pass forward and back.

        Weights, optimiser and averaged weights stay as they are.

        Args:
            backend: Compiler of `torch.compile`.

        Returns:
            The reason why it cannot be; empty where it is.
        """
        plan, fault = self.plan, ""
        shape = (plan.recipe.batch_size, plan.network_channels, *plan.patch_size)
        image = torch.zeros(shape, device=self.device.torch_device)
        compiled = torch.compile(self.network, dynamic=False, backend=backend)
        self.network.train()
        with self.undone():
            try:
                with self._autocast():
                    logits = compiled(self.in_memory_format(image))
                heads = logits if isinstance(logits, list | tuple) else [logits]
                torch.stack([head.float().mean() for head in heads]).sum().backward()
            except (RuntimeError, ImportError, OSError) as error:  # also all of the compiler's own
                fault = " ".join(str(error).split())[:200] or type(error).__name__
        self.optimizer.zero_grad(set_to_none=True)
        if not fault:
            self._forward = compiled
        return fault

    def use_uncompiled(self) -> None:
        """Give a compiled network up."""
        self._forward = self.network

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.device.torch_device.type,
            dtype=self.device.autocast_dtype,
            enabled=self.device.autocast_dtype is not None,
            cache_enabled=not self.device.is_cuda,  # a graph must cast the weights in every replay
        )

    def _whole_batch(self) -> AbstractContextManager[None]:
        """Losses whose sums go over the batches of all processes."""
        group = self._process_group
        return shared_batch(group.add_up, group.size) if group.is_joined else nullcontext()

    def ema_weight(self, step: int) -> float:
        """Share of the present weights that enters the averaged ones; larger at the start."""
        return 1.0 - min(self.plan.recipe.ema_decay, (1 + step) / (10 + step))

    def average(self, weight: float | Tensor) -> None:
        """Move the averaged weights towards the present ones.

        Args:
            weight: From `ema_weight`; a scalar on the device where a graph reads it.
        """
        if not self.averaged:
            return
        state = self.network.state_dict()
        floating = [name for name, tensor in state.items() if tensor.is_floating_point()]
        averaged = [self.averaged[name] for name in floating]
        present = [state[name] for name in floating]
        if isinstance(weight, Tensor):
            change = torch._foreach_sub(present, averaged)
            torch._foreach_mul_(change, weight)
            torch._foreach_add_(averaged, change)
        else:
            torch._foreach_lerp_(averaged, present, weight)
        for name in state.keys() - set(floating):
            self.averaged[name].copy_(state[name])

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Undo in place whatever steps change within the block: weights, averages, moments."""
        before = self._tensors()
        values = [tensor.detach().clone() for tensor in before]
        kept = {id(tensor) for tensor in before}
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, value in zip(before, values, strict=True):
                    tensor.copy_(value)
                for tensor in self._tensors():
                    if id(tensor) not in kept:
                        tensor.zero_()  # moments that the block has made

    def _tensors(self) -> list[Tensor]:
        moments = [
            value
            for state in self.optimizer.state.values()
            for value in state.values()
            if isinstance(value, Tensor)
        ]
        return [
            *self.network.parameters(),
            *self.network.buffers(),
            *self.averaged.values(),
            *moments,
        ]

    def checksum(self) -> float:
        """Sum of all weights, float64: equal in processes that have the same ones."""
        with torch.no_grad():
            parts = [tensor.double().sum() for tensor in self.network.parameters()]
            return float(torch.stack(parts).sum())

    def final_state(self) -> dict[str, Tensor]:
        """The weights to be used: averaged where the recipe averages, on the CPU."""
        state = self.averaged or self.network.state_dict()
        return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}

    def evaluation_network(self) -> nn.Module:
        """A network with the weights to be used, in evaluation mode."""
        if not self.averaged:
            self.network.eval()
            return self.network
        present = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        self._set_aside = present
        self.network.load_state_dict(self.averaged)
        self.network.eval()
        return self.network

    def restore_training_weights(self) -> None:
        """Undo what `evaluation_network` exchanged."""
        if self._set_aside:
            self.network.load_state_dict(self._set_aside)
            self._set_aside = {}

    def state(self) -> dict[str, Any]:
        """The parts of a checkpoint that belong to the trainer; waits for no device."""
        optimizer = self.optimizer.state_dict()
        for group in optimizer["param_groups"]:
            group["lr"] = self.rate
        return {
            "model": self.network.state_dict(),
            "optimizer": optimizer,
            "averaged": self.averaged,
            "scaler": self._scaler.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over the trainer's parts of a checkpoint."""
        self.network.load_state_dict(state["model"])
        # The checkpoint may come from another device, whose optimiser has other kernels.
        groups = [
            {**saved, **{name: own[name] for name in (*KERNELS, "lr") if name in own}}
            for saved, own in zip(
                state["optimizer"]["param_groups"], self.optimizer.param_groups, strict=True
            )
        ]
        self.optimizer.load_state_dict({**state["optimizer"], "param_groups": groups})
        if self.averaged.keys() != state["averaged"].keys():
            raise TrainingError("the checkpoint was trained with another ema_decay")
        for name, tensor in state["averaged"].items():
            self.averaged[name].copy_(tensor)
        if self.needs_scaler and state.get("scaler"):
            self._scaler.load_state_dict(state["scaler"])


KERNELS = ("foreach", "fused", "capturable")
"""Options of an optimiser that choose its kernels, not what it computes."""


def make_optimizer(
    network: nn.Module, recipe: Recipe, peak: float, *, device: Device
) -> torch.optim.Optimizer:
    """The recipe's optimiser; norms and biases are not decayed.

    On a GPU it is fused, and AdamW's learning rate is a tensor, for use in a graph.
    """
    matrices = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in network.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=peak, momentum=0.99, nesterov=True)
    if not device.is_cuda:
        return torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.99))
    rate = torch.tensor(peak, device=device.torch_device)
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.99), fused=True, capturable=True)
