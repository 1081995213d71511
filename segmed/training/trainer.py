"""One network with its optimiser, its averaged weights and one step of training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from segmed.errors import TrainingError
from segmed.losses import make_loss
from segmed.models import build_model
from segmed.models.fast_kernels import MEMORY_FORMAT
from segmed.plan.schema import NetworkPlan, Plan, Recipe
from segmed.training.data import Batch, augment
from segmed.training.device import Device
from segmed.training.distributed import Crew
from segmed.training.phases import StepTimer
from segmed.training.schedule import learning_rate


class Trainer:
    """What changes from step to step.

    Args:
        architecture: Model name, one of the plan's networks.
        plan: The plan.
        device: Where to train.
        crew: The processes that train together.
        compiled: Whether to compile the network.
    """

    def __init__(
        self, architecture: str, plan: Plan, *, device: Device, crew: Crew, compiled: bool = False
    ) -> None:
        self.plan = plan
        self.device = device
        self.settings: NetworkPlan = plan.networks[architecture]
        self.network = build_model(
            architecture,
            spatial_dims=plan.spatial_dims,
            in_channels=plan.in_channels,
            num_classes=plan.num_classes,
            **self.settings.options,
        )
        self.network.to(device.torch_device)
        self.network.to(memory_format=MEMORY_FORMAT[plan.spatial_dims])  # type: ignore[call-overload]  # missing from the stub
        self.loss = make_loss(self.settings.loss, num_classes=plan.num_classes)
        self.optimizer = make_optimizer(self.network, plan.recipe, self.settings.learning_rate)
        self.averaged = {
            name: tensor.detach().clone()
            for name, tensor in self.network.state_dict().items()
            if plan.recipe.ema_decay > 0
        }
        needs_scaler = device.autocast_dtype is torch.float16
        self._scaler = torch.amp.GradScaler(device.torch_device.type, enabled=needs_scaler)
        wrapped = crew.wrap(self.network, device)
        self._forward: nn.Module = torch.compile(wrapped) if compiled else wrapped  # type: ignore[assignment]  # compiled: a callable to the stub
        self.timer = StepTimer(device)
        self._parameters = [p for p in self.network.parameters() if p.requires_grad]

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
        self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.plan.recipe, self.settings.learning_rate, progress)
        image, label = augment(batch, self.plan, self.device)
        image = image.contiguous(memory_format=MEMORY_FORMAT[self.plan.spatial_dims])
        self.timer.mark()
        with torch.autocast(
            self.device.torch_device.type,
            dtype=self.device.autocast_dtype,
            enabled=self.device.autocast_dtype is not None,
        ):
            loss: Tensor = self.loss(self._forward(image), label)
        self.timer.mark()
        self.optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # PyTorch's own
        self.timer.mark()
        self._scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self._parameters, self.plan.recipe.gradient_clip)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        if self.averaged:
            self._average(step)
        self.timer.mark()
        return loss.detach()

    def _average(self, step: int) -> None:
        """Move the averaged weights towards the present ones; faster at the start."""
        decay = min(self.plan.recipe.ema_decay, (1 + step) / (10 + step))
        state = self.network.state_dict()
        floating = [name for name, tensor in state.items() if tensor.is_floating_point()]
        torch._foreach_lerp_(
            [self.averaged[name] for name in floating],
            [state[name] for name in floating],
            1.0 - decay,
        )
        for name in state.keys() - set(floating):
            self.averaged[name].copy_(state[name])

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
        if self.averaged:
            self.network.load_state_dict(self._set_aside)
            del self._set_aside

    def state(self) -> dict[str, Any]:
        """The parts of a checkpoint that belong to the trainer."""
        return {
            "model": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "averaged": self.averaged,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over the trainer's parts of a checkpoint."""
        self.network.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.averaged.keys() != state["averaged"].keys():
            raise TrainingError("the checkpoint was trained with another ema_decay")
        for name, tensor in state["averaged"].items():
            self.averaged[name].copy_(tensor)


def make_optimizer(network: nn.Module, recipe: Recipe, peak: float) -> torch.optim.Optimizer:
    """The recipe's optimiser; norms and biases are not decayed."""
    matrices = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in network.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=peak, momentum=0.99, nesterov=True)
    return torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.99))
