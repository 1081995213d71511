"""A few classes of MONAI without the rest of it, which loads at its first other use.

`import monai` imports every module of MONAI, and with them MLflow, matplotlib and scikit-learn: six
CPU seconds on top of PyTorch. Reading, preparing, segmenting and scoring an image needs a few
classes of it: the image, its reader, the bases of transforms and metrics. So the packages that
contain them are put in place unexecuted, and their modules are imported from them: half a second.
The classes are MONAI's own. A later `import monai`, by whomever, gives the whole.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

_ROOT = "monai"

_DEFERRED = (
    "monai.data",
    "monai.apps",
    "monai.metrics",
    "monai.networks",
    "monai.networks.layers",
    "monai.transforms",
    "monai.transforms.lazy",
    "monai.transforms.utility",
)
"""Packages below the root that are put in place unexecuted, in this order."""

_MODULES = {
    "MetaTensor": "monai.data.meta_tensor",
    "Compose": "monai.transforms.compose",
    "CumulativeIterationMetric": "monai.metrics.metric",
    "ImageReader": "monai.data.image_reader",
    "InvertibleTransform": "monai.transforms.inverse",
    "MapTransform": "monai.transforms.transform",
    "Randomizable": "monai.transforms.transform",
    "Transform": "monai.transforms.transform",
}
"""Module of each class."""

_HIDDEN = ("matplotlib.pyplot", "ignite", "pandas")
"""Imported by MONAI for pictures, trainers and profiles, and never needed for a MetaTensor."""

_NOTED = {
    "monai.utils.dist": ("idist", "has_ignite"),
    "monai.utils.enums": ("EventEnum", "AdversarialIterationEvents"),
    "monai.utils.jupyter_utils": ("plt", "has_matplotlib", "Engine", "Events"),
    "monai.utils.profiling": ("Events", "pd", "has_pandas"),
}
"""Modules of MONAI that note at their import what of `_HIDDEN` there is, and under which names."""

_LOCK = threading.RLock()
"""Held while a deferred package executes: other threads wait for the whole of it."""


class _DeferredPackage(ModuleType):
    """A package that executes its `__init__` when a missing attribute is read.

    `__path__` is such an attribute, so importing a module below it executes it first as well.
    """

    def __getattr__(self, name: str) -> Any:
        """The attribute, after the package has been executed."""
        if name.startswith("__") and name not in {"__path__", "__all__"}:
            raise AttributeError(name)  # the import system looks for marks that no package has
        with _LOCK:
            for package in (sys.modules[_ROOT], self):  # MONAI's own order: its root before all
                if type(package) is _DeferredPackage and "_is_executing" not in package.__dict__:
                    _execute(package)
        try:
            return self.__dict__[name]
        except KeyError:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}") from None


def _execute(package: ModuleType) -> None:
    """Run the `__init__` of a deferred package, which is an ordinary package from then on."""
    spec = package.__spec__
    assert spec is not None
    assert spec.loader is not None
    package.__dict__["_is_executing"] = True
    package.__path__ = list(spec.submodule_search_locations or ())
    _notice_hidden()
    try:
        spec.loader.exec_module(package)
    finally:
        del package.__dict__["_is_executing"]
        package.__class__ = ModuleType


def _notice_hidden() -> None:
    """Correct what MONAI noted while packages were hidden from it."""
    while _uncorrected:
        name = _uncorrected.pop()
        module, spec = sys.modules.get(name), importlib.util.find_spec(name)
        if module is None or spec is None or spec.loader is None:
            continue
        again = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(again)
        seen = {key: again.__dict__[key] for key in _NOTED[name] if key in again.__dict__}
        exported = sys.modules[name.rpartition(".")[0]].__dict__
        exported.update({key: value for key, value in seen.items() if key in exported})
        module.__dict__.update(seen)


def _put_in_place(name: str, spec: ModuleSpec | None) -> ModuleType:
    """A package in `sys.modules` that has not been executed."""
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError(f"{name} is not a package", name=name)
    package = importlib.util.module_from_spec(spec)
    package.__class__ = _DeferredPackage
    sys.modules[name] = package
    return package


_uncorrected: list[str] = []
"""Modules of `_NOTED` that were imported while packages were hidden."""


@contextmanager
def _without_hidden() -> Iterator[None]:
    """Hide packages from MONAI unless they are loaded."""
    hidden = [name for name in _HIDDEN if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: not to be imported
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
        _uncorrected.extend(_NOTED)


def _load_alone() -> dict[str, Any]:
    """The classes, with the packages around them in place but not executed.

    Raises:
        ImportError, AttributeError: This MONAI is built in another way.
    """
    root = _put_in_place(_ROOT, importlib.util.find_spec(_ROOT))
    root.__dict__["__version__"] = metadata.version(_ROOT)
    packages = [root]
    for name in _DEFERRED:
        above, _, last = name.rpartition(".")
        parent = sys.modules[above]
        packages.append(_put_in_place(name, PathFinder.find_spec(name, parent.__path__)))
        setattr(parent, last, packages[-1])
    with _without_hidden():
        found = _classes()
    # MONAI looks for it at each conversion of an array, such as by a metric.
    sys.modules["monai.data"].__dict__["MetaTensor"] = found["MetaTensor"]
    for package in packages:
        del package.__path__  # the next import from below them executes them
    return found


def _classes() -> dict[str, Any]:
    """The classes from their modules."""
    return {
        name: getattr(importlib.import_module(module), name) for name, module in _MODULES.items()
    }


def _load() -> dict[str, Any]:
    """The classes by the short way, or by the long one where MONAI is there or differs."""
    if _ROOT in sys.modules:
        return _classes()
    try:
        return _load_alone()
    except (ImportError, AttributeError):
        for name in [name for name in sys.modules if name.partition(".")[0] == _ROOT]:
            del sys.modules[name]
        return _classes()


if TYPE_CHECKING:
    from monai.data import ImageReader, MetaTensor
    from monai.metrics import CumulativeIterationMetric
    from monai.transforms import (
        Compose,
        InvertibleTransform,
        MapTransform,
        Randomizable,
        Transform,
    )
else:
    globals().update(_load())

__all__ = [
    "Compose",
    "CumulativeIterationMetric",
    "ImageReader",
    "InvertibleTransform",
    "MapTransform",
    "MetaTensor",
    "Randomizable",
    "Transform",
]
