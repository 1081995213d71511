"""Names of the architectures: the built-in ones, and those that users register.

A user's network is registered by `register_architecture`, either in a script or in a module that an
installed package announces under the entry-point group `segmed.architectures`:

```
[project.entry-points."segmed.architectures"]
segresnet = "my_networks"
```

The name of the entry point is that of the architecture, its value the module that registers it.
Such a module is imported when its architecture is used, never when names are listed. A model
package contains no code: it is used only where its architecture is registered.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from segmed.errors import ModelError, UsageError
from segmed.monai_networks import builder_of, network_of

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)

BUILT_IN = ("fcn32s", "fcn16s", "fcn8s", "unet", "unetpp", "unet3plus", "deeplabv3plus")
"""In the order of publication; `segmed.models.registry` builds each of them and no other."""

IMPORTED = ("nnunet",)
"""Networks of imported packages: built like the others, but no plan offers them."""

GROUP = "segmed.architectures"
"""Entry-point group under which installed packages announce architectures."""

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
"""Names that are safe in command lines, folder names and trackers."""

RESERVED = ("all", "mean")
"""Words that have another meaning where architectures are listed."""

LEARNING_RATE = 1e-3
"""Peak learning rate of a registered architecture, if its registration states none."""


@dataclass(frozen=True)
class PlannedInput:
    """Input and output of a planned network, and the planned levels of resolution.

    Attributes:
        spatial_dims: 2 or 3.
        in_channels: Channels of the image.
        num_classes: Classes of the logits, background included.
        patch_size: Voxels of a patch along each axis.
        spacing_mm: Voxel edge along each axis, in mm.
        strides: Step of each level from the level above, per axis, finest level first.
        size: `small` for a CPU or short budgets, `full` for a GPU (plans of `residual` size, too).
    """

    spatial_dims: Literal[2, 3]
    in_channels: int
    num_classes: int
    patch_size: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    strides: tuple[tuple[int, ...], ...]
    size: Literal["small", "full"] = "small"


Build = Callable[..., "nn.Module"]
PlanOptions = Callable[[PlannedInput], Mapping[str, Any]]


@dataclass(frozen=True)
class RegisteredArchitecture:
    """One architecture that a user registered; see `register_architecture` for the fields."""

    name: str
    build: Build
    plan_options: PlanOptions
    size_multiple: int | tuple[int, ...] = 1
    spatial_dims: tuple[int, ...] = (2, 3)
    learning_rate: float = LEARNING_RATE
    reference: str = ""

    def options_for(self, planned: PlannedInput) -> dict[str, Any]:
        """Build options for a plan, as plain values.

        Raises:
            ModelError: `plan_options` returned values that a plan file cannot represent.
        """
        options = dict(self.plan_options(planned))
        try:
            plain: dict[str, Any] = json.loads(json.dumps(options, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ModelError(
                f"plan_options of {self.name!r} must return JSON values (numbers, texts, lists), "
                f"got {options!r}: {error}"
            ) from error
        return plain


_REGISTERED: dict[str, RegisteredArchitecture] = {}


def no_options(planned: PlannedInput) -> dict[str, Any]:
    """Return no options: the network is built with its own defaults."""
    return {}


def register_architecture(
    name: str,
    build: Build,
    plan_options: PlanOptions = no_options,
    *,
    size_multiple: int | Sequence[int] = 1,
    spatial_dims: Sequence[int] = (2, 3),
    learning_rate: float = LEARNING_RATE,
    reference: str = "",
) -> None:
    """Register a network under a name, which every command and function then accepts.

    Plans made from now on contain it. A second registration of a name replaces the first.

    Args:
        name: Letters, digits, `_` and `-`; not the name of a built-in architecture.
        build: Called as `build(spatial_dims=..., in_channels=..., num_classes=..., **options)`;
            returns a network from `[B, in_channels, *spatial]` to logits
            `[B, num_classes, *spatial]` (in training also a list of them, finest first).
        plan_options: Returns the options for a planned input; JSON values only.
        size_multiple: Inputs are padded with zeros to multiples of this along each axis, and the
            logits are cropped; one number, or one an axis.
        spatial_dims: Dimensions that the network can be built for.
        learning_rate: Peak learning rate in plans made from now on.
        reference: Authors and year.

    Raises:
        UsageError: The name is invalid or built in, or an argument is out of range.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name) or name in RESERVED:
        raise UsageError(
            f"invalid name of an architecture {name!r}: write a letter, then letters, digits, _ "
            f"and - (64 at most), and none of {', '.join(RESERVED)}"
        )
    if network_of(name) is not None:
        raise UsageError(f"{name!r} is the name of MONAI's network: register yours by another name")
    if name in BUILT_IN:
        raise UsageError(f"{name!r} is a built-in architecture: register yours by another name")
    for argument, value in (("build", build), ("plan_options", plan_options)):
        if not callable(value):
            raise UsageError(f"{argument} of {name!r} must be a function, got {value!r}")
    if not set(spatial_dims) <= {2, 3} or not spatial_dims:
        raise UsageError(f"spatial_dims of {name!r} must be (2,), (3,) or (2, 3): {spatial_dims!r}")
    multiple = size_multiple if isinstance(size_multiple, int) else tuple(size_multiple)
    if min((multiple,) if isinstance(multiple, int) else multiple, default=0) < 1:
        raise UsageError(f"size_multiple of {name!r} must be positive, got {size_multiple!r}")
    if not 0.0 < learning_rate < 1.0:
        raise UsageError(f"learning_rate of {name!r} must be in 0..1, got {learning_rate!r}")
    if name in _REGISTERED:
        log.info("the registration of architecture %s is replaced", name)
    _REGISTERED[name] = RegisteredArchitecture(
        name, build, plan_options, multiple, tuple(spatial_dims), learning_rate, reference
    )


def registered_names() -> tuple[str, ...]:
    """Names of the registered architectures: of this process first, then of installed packages."""
    return tuple(dict.fromkeys([*_REGISTERED, *sorted(_announced())]))


def registered_architecture(name: str) -> RegisteredArchitecture | None:
    """The registration of a name; the module that announces it is imported for that.

    Args:
        name: Name of an architecture.

    Returns:
        The registration; None if the name is built in or unknown.

    Raises:
        ModelError: The module of an entry point cannot be imported, or does not register the name.
    """
    if (network := network_of(name)) is not None:
        return RegisteredArchitecture(name, builder_of(network), no_options, reference="MONAI")
    if name not in _REGISTERED and name in _announced():
        _load(_announced()[name])
    return _REGISTERED.get(name)


def require_architecture(name: str) -> None:
    """Check that a name is that of an architecture.

    Raises:
        UsageError: It is neither built in nor registered.
    """
    if _is_known(name):
        return
    known = ", ".join(sorted((*BUILT_IN, *registered_names())))
    raise UsageError(
        f"unknown model {name!r}: known are {known}; others are registered by "
        "segmed.register_architecture"
    )


def _is_known(name: str) -> bool:
    return name in BUILT_IN or name in registered_names() or network_of(name) is not None


def require_registered(name: str) -> None:
    """Check that the architecture of a package can be built here.

    Raises:
        ModelError: It is neither built in, imported nor registered.
    """
    if name in IMPORTED or _is_known(name):
        return
    raise ModelError(
        f"the package's architecture {name!r} is not registered here: import the module that calls "
        f"segmed.register_architecture({name!r}, ...), or install the package that announces it "
        f"under the entry-point group {GROUP!r}; a model package contains no code"
    )


@cache
def _announced() -> dict[str, EntryPoint]:
    """Entry points of installed packages by name, none of them imported."""
    return {point.name: point for point in entry_points(group=GROUP)}


def _load(point: EntryPoint) -> None:
    """Import the module of an entry point, and call its function if it names one."""
    try:
        found = point.load()
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"architecture {point.name!r} is announced by the entry point {point.value!r}, which "
            f"cannot be imported: {error}"
        ) from error
    if not isinstance(found, ModuleType):
        found()
    if point.name not in _REGISTERED:
        raise ModelError(
            f"the entry point {point.value!r} of architecture {point.name!r} does not register it: "
            f"call segmed.register_architecture({point.name!r}, ...) there"
        )
