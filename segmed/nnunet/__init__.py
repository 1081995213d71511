"""Trained nnU-Net v2 folders: read without running any of their code, made into packages."""

from __future__ import annotations

from segmed.nnunet.folder import NnUNetFolder, open_folder
from segmed.nnunet.to_package import package_of

__all__ = ["NnUNetFolder", "open_folder", "package_of"]
