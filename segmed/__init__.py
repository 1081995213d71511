"""segmed: medical-image segmentation from scans to audited archives.

```python
import segmed

manifest = segmed.build_manifest("images")
plan = segmed.make_plan(manifest)
package = segmed.train(manifest, plan, architecture="unet", fold=0, budget="2h", out="runs/unet")
scores = segmed.evaluate(package, manifest)
found = segmed.Predictor(package).predict("scan.nii.gz")
```

Each name is imported at its first use (PEP 562): `import segmed` and `segmed --help` do not load
PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from segmed.lazy import lazy_exports
from segmed.notebook import picture_images
from segmed.version import __version__ as __version__

if TYPE_CHECKING:
    from segmed.architectures import register_architecture
    from segmed.evaluation import evaluate
    from segmed.inference.predictor import Predictor
    from segmed.io.read import read_image
    from segmed.manifest.build import build_manifest
    from segmed.models.registry import build_model
    from segmed.package.model_package import ModelPackage
    from segmed.plan.make import make_plan
    from segmed.training.calls import train
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "segmed.architectures": "register_architecture",
            "segmed.evaluation": "evaluate",
            "segmed.inference.predictor": "Predictor",
            "segmed.io.read": "read_image",
            "segmed.manifest.build": "build_manifest",
            "segmed.models.registry": "build_model",
            "segmed.package.model_package": "ModelPackage",
            "segmed.plan.make": "make_plan",
            "segmed.training.calls": "train",
        },
    )

__all__ = [
    "ModelPackage",
    "Predictor",
    "build_manifest",
    "build_model",
    "evaluate",
    "make_plan",
    "read_image",
    "register_architecture",
    "train",
]


picture_images()


def __dir__() -> list[str]:
    """Names of the front door, for completion."""
    return sorted([*globals(), *__all__])
