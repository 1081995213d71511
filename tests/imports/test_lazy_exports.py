"""Exports of the library's packages: each is found late, and is what the type checker believes."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

PACKAGES = sorted(
    ".".join(path.parent.relative_to(REPOSITORY).parts)
    for path in (REPOSITORY / "segmed").rglob("__init__.py")
    if "lazy_exports(" in path.read_text(encoding="utf-8")
)


def _tree(package: str) -> ast.Module:
    path = REPOSITORY.joinpath(*package.split("."), "__init__.py")
    return ast.parse(path.read_text(encoding="utf-8"))


def _declared(package: str) -> dict[str, str]:
    """Name and module of each import that only the type checker sees."""
    found = {}
    for node in _tree(package).body:
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            for line in node.body:
                assert isinstance(line, ast.ImportFrom)
                found |= {alias.name: str(line.module) for alias in line.names}
    return found


def _lazy(package: str) -> dict[str, str]:
    """Name and module of each export that is imported at its first use."""
    for node in ast.walk(_tree(package)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "lazy_exports":
            table: dict[str, str] = ast.literal_eval(node.args[1])
            return {name: module for module, names in table.items() for name in names.split()}
    raise AssertionError(package)


def test_most_packages_export_lazily() -> None:
    assert {"segmed.io", "segmed.manifest", "segmed.training", "segmed.archive"} <= set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_lazy_exports_are_those_that_the_type_checker_sees(package: str) -> None:
    assert _lazy(package) == _declared(package)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_advertised_name_is_there_and_no_module_hides_it(package: str) -> None:
    for name, module in _lazy(package).items():
        importlib.import_module(module)  # a module below a package becomes an attribute of it
        assert getattr(importlib.import_module(package), name) is getattr(
            importlib.import_module(module), name
        )
    assert set(_lazy(package)) <= set(importlib.import_module(package).__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(ImportError, match="read_volume"):
        exec("from segmed.io import read_volume")
    assert not hasattr(importlib.import_module("segmed.io"), "read_volume")


def _run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


LIGHT = "from segmed.metatensor import Compose, MetaTensor; import sys, torch;"


def test_metatensor_loads_neither_mlflow_nor_the_rest_of_monai() -> None:
    loaded = set(_run(f"{LIGHT} print(*sys.modules)").split())
    assert "monai.data.meta_tensor" in loaded
    assert "monai.transforms.compose" in loaded
    heavy = {"mlflow", "matplotlib", "sklearn", "monai.transforms.io", "monai.networks.nets"}
    assert not heavy & loaded


def test_light_metatensor_keeps_geometry_through_operations() -> None:
    code = (
        "m = MetaTensor(torch.ones(1, 2, 2), affine=2 * torch.eye(4)); print(((m + 1) * m).affine)"
    )
    assert "2., 0., 0., 0." in _run(LIGHT + code)


@pytest.mark.parametrize(
    "use",
    [
        "import monai; monai.transforms.Compose([])",
        "from monai.transforms import Compose; Compose([])",
        "import monai.transforms.io.array",
        "from monai.apps.utils import get_logger",
        "from monai.data import CacheDataset; CacheDataset([], None)",
        "import monai.data.dataset; monai.data.dataset.Dataset([])",
        "from monai.data import *; DataLoader",
        "from monai.inferers import SlidingWindowInferer; SlidingWindowInferer(2)",
    ],
)
def test_monai_is_whole_and_has_the_same_class_when_it_is_used_later(use: str) -> None:
    code = (
        f"{LIGHT} {use}\n"
        "import monai, monai.data.meta_tensor, monai.data.utils\n"
        "assert monai.data.MetaTensor is MetaTensor is monai.data.meta_tensor.MetaTensor\n"
        "assert monai.data.Dataset is not None  # a MetaTensor alone executes no package\n"
        "assert type(monai) is type(monai.data) is type(monai.transforms) is type(sys)\n"
        "assert monai.transforms.Compose is Compose and monai.apps.download_url\n"
        "assert monai.utils.jupyter_utils.has_matplotlib and monai.losses.DiceLoss\n"
        "assert len(monai.__version__.split('.')) > 2\n"
        "modules = {name for name in sys.modules if name.startswith('monai')}\n"
        "print(len(modules))\n"
    )
    plain = "import sys, monai; print(len([n for n in sys.modules if n.startswith('monai')]))"
    assert int(_run(code)) >= int(_run(plain))


def test_monai_that_is_there_already_gives_its_class() -> None:
    assert _run(f"import monai; {LIGHT} print(MetaTensor is monai.data.MetaTensor)") == "True\n"


def test_threads_that_use_monai_at_once_see_all_of_it() -> None:
    code = (
        f"{LIGHT} import monai\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "names = ['transforms.Compose', 'losses.DiceLoss', 'data.Dataset', 'inferers.Inferer']\n"
        "def get(name):\n"
        "    first, second = name.split('.')\n"
        "    return getattr(getattr(monai, first), second)\n"
        "with ThreadPoolExecutor(8) as pool:\n"
        "    print(len(list(pool.map(get, names * 4))))\n"
    )
    assert _run(code) == "16\n"
