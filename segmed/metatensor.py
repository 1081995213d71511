"""MONAI's MetaTensor without the rest of MONAI, which loads at the first use of anything else.

`import monai` imports every module of MONAI, and with them MLflow, matplotlib and scikit-learn: six
CPU seconds on top of PyTorch. Segmenting an image needs one class of it. So the packages `monai`
and `monai.data` are put in place unexecuted, and the module of MetaTensor is imported from them:
half a second. The class is MONAI's own. A later `import monai`, by whomever, gives the whole.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

_ROOT, _DATA, _CLASS_MODULE = "monai", "monai.data", "monai.data.meta_tensor"

_PLOTS = "matplotlib.pyplot"
"""Imported by MONAI for pictures in notebooks, and never needed for a MetaTensor."""

_PLOTTERS = "monai.utils.jupyter_utils"
"""MONAI's module that notes at its import whether there is `_PLOTS`."""

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
    _notice_plots()
    try:
        spec.loader.exec_module(package)
    finally:
        del package.__dict__["_is_executing"]
        package.__class__ = ModuleType


def _notice_plots() -> None:
    """Correct what MONAI noted while matplotlib was hidden from it."""
    plotters = sys.modules.get(_PLOTTERS)
    if plotters is None or getattr(plotters, "has_matplotlib", True):
        return
    if importlib.util.find_spec("matplotlib") is not None:
        plotters.__dict__.update(plt=importlib.import_module(_PLOTS), has_matplotlib=True)


def _put_in_place(name: str, spec: ModuleSpec | None) -> ModuleType:
    """A package in `sys.modules` that has not been executed."""
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError(f"{name} is no package", name=name)
    package = importlib.util.module_from_spec(spec)
    package.__class__ = _DeferredPackage
    sys.modules[name] = package
    return package


def _load_alone() -> Any:
    """MetaTensor, with `monai` and `monai.data` in place but not executed.

    Raises:
        ImportError, AttributeError: This MONAI is built in another way.
    """
    root = _put_in_place(_ROOT, importlib.util.find_spec(_ROOT))
    data = _put_in_place(_DATA, PathFinder.find_spec(_DATA, root.__path__))
    root.__dict__.update(data=data, __version__=metadata.version(_ROOT))
    hides_plots = _PLOTS not in sys.modules
    if hides_plots:
        sys.modules[_PLOTS] = None  # type: ignore[assignment]  # how an import is made to fail
    try:
        found = importlib.import_module(_CLASS_MODULE).MetaTensor
    finally:
        if hides_plots:
            del sys.modules[_PLOTS]
    for package in (data, root):
        del package.__path__  # the next import from below them executes them
    return found


def _load() -> Any:
    """MetaTensor by the short way, or by the long one where MONAI is there or differs."""
    if _ROOT in sys.modules:
        return importlib.import_module(_DATA).MetaTensor
    try:
        return _load_alone()
    except (ImportError, AttributeError):
        for name in [name for name in sys.modules if name.partition(".")[0] == _ROOT]:
            del sys.modules[name]
        return importlib.import_module(_DATA).MetaTensor


if TYPE_CHECKING:
    from monai.data import MetaTensor
else:
    MetaTensor = _load()

__all__ = ["MetaTensor"]
