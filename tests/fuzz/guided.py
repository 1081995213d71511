"""Coverage-guided fuzzing of one reader: `python tests/fuzz/guided.py plan 60`.

Atheris changes the bytes of a corpus so that they reach code that nothing has reached; whatever is
not read must be refused by an error of ours. The corpus starts with the hostile inputs of
`tests/hostile` and grows in the folder named last, so that the next call goes on from there.
"""

from __future__ import annotations

import hashlib
import io
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import atheris

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent), str(HERE.parent / "hostile")]

READ_BY = [
    "segmed.io", "segmed.manifest.json_form", "segmed.plan.yaml_form", "segmed.package",
    "pydicom.filereader",
]  # fmt: skip
"""What is watched for new paths: the readers, not the networks."""

with atheris.instrument_imports(include=READ_BY):
    from segmed.errors import SegmedError
    from segmed.io.arrays import load
    from segmed.io.limits import ReadLimits
    from segmed.manifest import read_manifest
    from segmed.package import ModelPackage
    from segmed.plan import read_plan

LIMITS = ReadLimits(max_voxels=1 << 20)
MEMORY_MB, ONE_INPUT_S, LONGEST = 4096, 20, 1 << 16


def read_image(path: Path) -> object:
    return load(path, LIMITS)


READERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "image": (read_image, "a.bin"),
    "manifest": (read_manifest, "a.json"),
    "plan": (read_plan, "a.yaml"),
    "package": (ModelPackage.load, "a.zip"),
}


def seeds(target: str) -> list[bytes]:
    """Sound and hostile files of the kind that a reader takes."""
    # Their imports must come after those that are instrumented above.
    from dicoms import sound  # noqa: PLC0415 - see above
    from documents import (  # noqa: PLC0415 - see above
        MANIFESTS,
        PACKAGES,
        PLANS,
        sample,
        sound_package,
    )
    from pictures import PICTURES  # noqa: PLC0415 - see above
    from volumes import VOLUMES, nifti  # noqa: PLC0415 - see above

    known = {
        "image": [*VOLUMES, *PICTURES], "manifest": MANIFESTS, "plan": PLANS, "package": PACKAGES,
    }[target]  # fmt: skip
    found = []
    for entry in known:
        with tempfile.TemporaryDirectory() as name:
            made = entry.make(Path(name))
            if isinstance(made, Path) and made.is_file() and made.stat().st_size < LONGEST:
                found.append(made.read_bytes())
    with tempfile.TemporaryDirectory() as name:
        if target == "image":
            found += [nifti(), sound(Path(name))[0].read_bytes()]
        if target == "manifest":
            found.append(repr(sample()).replace("'", '"').encode())
        if target == "plan":
            found.append(sound_package()["plan.yaml"])
        if target == "package":
            stream = io.BytesIO()
            with zipfile.ZipFile(stream, "w") as archive:
                for member, content in sound_package().items():
                    archive.writestr(member, content)
            found.append(stream.getvalue())
    return found


def main() -> None:
    """Fuzz one reader for some seconds; the exit status says whether anything else came out."""
    target, seconds = sys.argv[1], int(sys.argv[2])
    read, file_name = READERS[target]
    scratch = Path(tempfile.mkdtemp(prefix="segmed-fuzz-"))
    corpus = Path(sys.argv[3]) if len(sys.argv) > 3 else scratch / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for content in seeds(target):
        (corpus / hashlib.sha256(content).hexdigest()[:16]).write_bytes(content)

    def one_input(data: bytes) -> None:
        path = scratch / file_name
        path.write_bytes(data)
        try:
            read(path)
        except SegmedError as error:
            if not str(error).isprintable():
                raise ValueError("a refusal that is more than one line") from error

    options = [f"-max_total_time={seconds}", f"-rss_limit_mb={MEMORY_MB}", f"-max_len={LONGEST}",
               f"-timeout={ONE_INPUT_S}", f"-artifact_prefix={scratch}/"]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(corpus)], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
