"""Names of the architectures, without the architectures: to check a command line by."""

from __future__ import annotations

NAMES = ("fcn32s", "fcn16s", "fcn8s", "unet", "unetpp", "unet3plus", "deeplabv3plus")
"""In the order of publication; `segmed.models.registry` builds each of them and no other."""


def list_models() -> tuple[str, ...]:
    """Names that `build_model` knows.

    Returns:
        The names, in the order of publication.
    """
    return NAMES
