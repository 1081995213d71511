"""From a package and an image to its segmentation, on the image's own grid."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch

from segmed.doors import checked
from segmed.errors import UsageError, is_out_of_memory
from segmed.geometry import Grid
from segmed.inference.cascade import PreparedForStages, first_stage_of
from segmed.inference.choice import EngineRequest, make_engine
from segmed.inference.cuda_engine import CudaEngine
from segmed.inference.device_memory import DeviceMemory, full_batch
from segmed.inference.device_path import DevicePath
from segmed.inference.engine import Engine, resolve_device
from segmed.inference.ensemble import averaged, mirrored, slice_by_slice
from segmed.inference.fitting import require_fitting
from segmed.inference.foreseen import (
    device_memory_of,
    fell_back,
    memory_of,
    require_free,
    take_less,
)
from segmed.inference.given_image import GivenImage, image_from
from segmed.inference.label_map import Keeps, KeptProbabilities, gathered
from segmed.inference.mean_of_plans import (
    PreparedForPlans,
    course_of,
    groups_of,
    mean_boxes,
    views_of,
)
from segmed.inference.memory import MemoryEstimate, Surroundings, growth_of, resident_bytes
from segmed.inference.observing import CaseObserver, QualityObserver
from segmed.inference.plan_recipe import is_thin, recipe_of
from segmed.inference.postprocessing import cleaned
from segmed.inference.segmentation import Segmentation
from segmed.inference.sliding import NetworkFn, WindowRecipe, sliding_slabs
from segmed.inference.streams import Places
from segmed.inference.vocabulary import EngineName
from segmed.io import grid_of
from segmed.metatensor import MetaTensor
from segmed.package import ModelPackage
from segmed.package.references import load_package, members_of
from segmed.plan import Plan
from segmed.transforms.chain import IMAGE, preparation, prepared_of
from segmed.transforms.first_stage import with_label_map
from segmed.transforms.grid_transform import Prepared
from segmed.transforms.inverse import ProbsBox

BATCH_VOXELS = 2**18
"""Aim for the voxels of a batch of windows on the CPU; more gains nothing there."""


class Predictor:
    """Loads networks once and segments many images.

    Several threads may share one predictor: as many images go through the networks at once as the
    engines have streams, see `segmed.inference.streams`.

    Args:
        packages: One, or several to average: by windows of one plan, else on the image's grid.
        device: `auto`, `cpu` or `cuda`.
        engine: `auto` (see `segmed.inference.choice`), `torch`, `compile` or `openvino`.
        tta: Average over the mirror images that the plan allows; None: as the plan has it.
        cache_dir: Folder that keeps converted models; None keeps nothing.
        memory_gb: Resident set that must not be exceeded: windows go one at a time, images are not
            read ahead, and an image that needs more is refused with the figure.
        any_modality: Take DICOM images of another modality or body part than the plan's, too.
        gpu_share: Part of a GPU's free memory that is this predictor's, where several share it.

    Attributes:
        plan: The plan of the packages; where they have several, that of the first.
        preparation: The plan's chain of transforms, whose inverse brings the output back.
        packages: The packages.
        engines: What runs each of them; of several plans those of the first.
        streams: Small images that go through the networks at once.
        observer: Gathers features of each segmentation, and predicts its quality.
        path: Way through a GPU of the networks of the first plan; None on a CPU.
        first_stage: Predictor of the first stage of a cascade; None for models of one stage.
    """

    @checked("packages")
    def __init__(
        self,
        packages: ModelPackage | Sequence[ModelPackage],
        *,
        device: str = "auto",
        engine: EngineName = "auto",
        tta: bool | None = None,
        cache_dir: Path | None = None,
        memory_gb: float | None = None,
        any_modality: bool = False,
        gpu_share: float = 1.0,
    ) -> None:
        members = members_of(packages)
        own, *further = groups_of(members)
        self.plan: Plan = own.packages[0].plan
        self.num_channels = self.plan.in_channels
        self.preparation = preparation(self.plan)
        self.packages = tuple(members)
        self.observer = QualityObserver(self.packages, self.plan)
        self.device = resolve_device(device)
        self.tta = self.plan.inference.tta if tta is None else tta
        self.memory_gb = memory_gb
        self.any_modality = any_modality
        window = self.plan.patch_size
        full = full_batch(window) if self.device.type == "cuda" else BATCH_VOXELS // prod(window)
        self.batch = 1 if memory_gb is not None else max(1, full)
        shape = (self.batch, self.plan.network_channels, *window)
        axes = tuple(self.plan.inference.mirror_axes) if self.tta else ()
        shown, bound = self.observer.needs_members, memory_gb is not None
        self._request = EngineRequest(engine, self.device, shape, cache_dir, axes, shown, bound)
        first = first_stage_of(members)
        self._gpu_share = gpu_share / (1 + len(further) + (first is not None))
        self._shares = [group.share for group in (own, *further)]
        options: Any = {"device": device, "engine": engine, "tta": self.tta, "cache_dir": cache_dir}
        options |= {"memory_gb": memory_gb, "gpu_share": self._gpu_share}
        others = [Predictor(group.packages, **options) for group in further]
        self._walks: tuple[Predictor, ...] = (self, *others)  # one a plan
        self.first_stage = None if first is None else Predictor(first, **options)
        self._all = self._walks if self.first_stage is None else (self, self.first_stage)
        self._use([make_engine(member, self._request) for member in own.packages])
        self._base_bytes = resident_bytes()

    @classmethod
    @checked()
    def load(
        cls,
        model: str | Path,
        *,
        device: str = "auto",
        engine: EngineName = "auto",
        tta: bool | None = None,
        memory_gb: float | None = None,
    ) -> Predictor:
        """Load a model and make a predictor of it.

        Args:
            model: Folder or zip of a package, or `models:/NAME@alias` of the model registry.
            device: As for the class, like the rest.
            engine: Name of an engine.
            tta: Average over mirror images; None: as the plan has it.
            memory_gb: Resident set that must not be exceeded.

        Raises:
            UsageError: Nothing resolves the reference, or an option is wrong.
            PackageError: The package is missing or damaged.
            ModelError: Its architecture is not registered here.
        """
        return cls(load_package(model), device=device, engine=engine, tta=tta, memory_gb=memory_gb)

    def __repr__(self) -> str:
        """Architectures, structures and device in one line."""
        names = ", ".join(package.architecture for package in self.packages)
        shown = [label.name for label in self.plan.labels]
        found = ", ".join(shown[:4] + ["..."] * (len(shown) > 4))
        return f"Predictor({names}; {self.plan.name}: {found}; {self.device})"

    def predict(
        self,
        image: GivenImage,
        *,
        affine: npt.ArrayLike | None = None,
        probabilities: bool = False,
    ) -> Segmentation:
        """Segment one image.

        Args:
            image: A file or DICOM folder (or one file a channel); a MetaTensor `[C, *spatial]` in
                storage order, as `read_image` gives it; or an array with `affine`.
            affine: Of an array: 4x4, from voxel indices to RAS+ mm.
            probabilities: Keep the class probabilities too.

        Raises:
            ImageError: The file cannot be read correctly, or the image has other channels than the
                plan.
            GeometryError: It has other axes than the plan.
            UsageError: Type, numbers or affine are not those of an image, or it needs more memory
                than is allowed.
        """
        start = time.perf_counter()
        read = image_from(image, self.plan, affine)
        if not isinstance(image, MetaTensor):
            self.require_fitting(read)
        self.require_memory(grid_of(read), keeps_probs=probabilities)
        prepared = self.prepare(read)
        spent = time.perf_counter() - start
        found = self.segment(prepared, probabilities=probabilities)
        spent_by = {"prepare": spent, **found.phases}
        return replace(found, seconds=time.perf_counter() - start, phases=spent_by, image=read)

    def require_fitting(self, image: MetaTensor) -> None:
        """Check modality and body part of an image read from DICOM, unless any may come.

        Raises:
            ImageError: `other_modality` or `other_body_part`.
        """
        if not self.any_modality:
            require_fitting(image, self.plan)

    def prepare(self, image: MetaTensor) -> Prepared:
        """Run the plan's chain on an image `[C, *spatial]`; raises as `PreparationChain` does."""
        own, *more = (prepared_of(one.preparation({IMAGE: image})[IMAGE]) for one in self._walks)
        if self.first_stage is not None:
            return PreparedForStages(own.tensor, own.transform, self.first_stage.prepare(image))
        return PreparedForPlans(own.tensor, own.transform, tuple(more)) if more else own

    def streams_for(self, prepared: Prepared) -> int:
        """Images of this size that go through the networks at once: one, if its windows are many.

        Args:
            prepared: What `prepare` gave.
        """
        largest = max(view.tensor[0].numel() for view in views_of(prepared))
        return 1 if largest > BATCH_VOXELS else self.streams

    def segment(self, prepared: Prepared, *, probabilities: Keeps = False) -> Segmentation:
        """Segment one prepared image; the first half of `predict` may so run elsewhere.

        Args:
            prepared: What `prepare` gave.
            probabilities: Keep the class probabilities too; `bytes`: 8 bits each, on disk.
        """
        start = time.perf_counter()
        with self._places.taken(1 + self.streams - self.streams_for(prepared)):
            prepared = self._refining(prepared)
            label, kept, case = self._in_memory(prepared, probabilities=probabilities)
            while fell_back(self._walks):
                label, kept, case = self._in_memory(prepared, probabilities=probabilities)
            features = case.features()
        rules, labels = self.plan.inference, self.plan.labels
        label = cleaned(label, rules, labels, spacing_mm=prepared.grid_in.spacing_mm)
        affine = torch.from_numpy(prepared.grid_in.affine_ras)
        whole = MetaTensor(torch.from_numpy(label)[None], affine=affine)
        seconds = time.perf_counter() - start
        phases = {"network": case.network_s, "inverse": seconds - case.network_s}
        found = Segmentation(whole, kept.whole, seconds, phases, labels, None, kept.fractions)
        return self.observer.described(found, features)

    def _in_memory(
        self, prepared: Prepared, *, probabilities: Keeps
    ) -> tuple[npt.NDArray[Any], KeptProbabilities, CaseObserver]:
        """`_label_map`, again with less memory of the GPU if it ran out."""
        while True:
            try:
                return self._label_map(prepared, probabilities=probabilities)
            except RuntimeError as error:
                if not is_out_of_memory(error) or not take_less(self._walks):
                    raise

    def _label_map(
        self, prepared: Prepared, *, probabilities: Keeps
    ) -> tuple[npt.NDArray[Any], KeptProbabilities, CaseObserver]:
        """Label values and probabilities on the input's grid, and the observer of the image."""
        case = self.observer.of_case(prepared, len(self.engines))
        shape, encoding = prepared.grid_in.shape, self.plan.encoding
        kept = KeptProbabilities(probabilities, encoding, shape)
        return gathered(self._pieces(prepared, case), shape, encoding, kept), kept, case

    def _refining(self, prepared: Prepared) -> Prepared:
        """The image with the label map of the first stage, where there is one."""
        if self.first_stage is None or not isinstance(prepared, PreparedForStages):
            return prepared
        return with_label_map(prepared, self.first_stage.segment(prepared.first).label, self.plan)

    def _pieces(self, prepared: Prepared, case: CaseObserver) -> Iterator[ProbsBox]:
        """Probabilities on the input's grid, piece by piece as the windows advance.

        On a GPU with room for it the prepared volume, the blended map and the pieces stay there.
        """
        if not isinstance(prepared, PreparedForPlans):
            return self._walk(prepared, case, None)
        course = course_of([walk.plan for walk in self._walks], prepared)
        views = zip(self._walks, views_of(prepared), strict=True)
        walks = [walk._walk(view, case, course.dim) for walk, view in views]
        return case.watch_boxes(mean_boxes(walks, self._shares, course), prepared, course)

    def _walk(self, prepared: Prepared, case: CaseObserver, dim: int | None) -> Iterator[ProbsBox]:
        """Probabilities of the networks of one plan; along a given axis where there are others."""
        shape = tuple(prepared.tensor.shape[1:])
        network, tensor = self._network(case), prepared.tensor
        thin = is_thin(self.plan, len(shape))
        network = slice_by_slice(network, self.plan.slice_axis or 0) if thin else network
        if self.path is not None:
            if self.path.takes(self.recipe(shape, dim), shape, prepared.grid_in.shape):
                tensor = tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor
                tensor = tensor.to(self.path.device, non_blocking=True)
            else:
                on_gpu = network
                network = lambda windows: on_gpu(windows).cpu()  # noqa: E731 - one line says it
        recipe = self.recipe(shape, dim)
        slabs = sliding_slabs(case.timed(network), tensor, recipe)
        images = tensor[: len(tensor) - self.plan.label_channels]
        slabs = case.watch(slabs, images, recipe.buffer_dim) if dim is None else slabs
        boxes = self.preparation.inverse_slabs(slabs, prepared.transform, recipe.buffer_dim)
        return map(self._of_logits, boxes) if self.plan.inference.average == "logits" else boxes

    def _of_logits(self, box: ProbsBox) -> ProbsBox:
        return replace(box, probs=self.plan.encoding.probabilities(box.probs[None])[0])

    def forecast_device(self, grid: Grid) -> DeviceMemory | None:
        """Forecast of the GPU memory of segmenting an image on this grid; None without a GPU.

        Args:
            grid: Grid of the image as stored.
        """
        return device_memory_of(self._all, grid)

    def gather_features(self) -> None:
        """Give each segmentation its features from now on, with the agreement of the members."""
        self.observer.is_on = True
        if self.observer.has_members and not self._request.shows_members:
            self._request = replace(self._request, shows_members=True)
            self._use([make_engine(package, self._request) for package in self.packages])

    def _use(self, engines: list[Engine]) -> None:
        """Take engines; those for a GPU have a path of their own."""
        self.engines = engines
        others = [walk.streams for walk in self._walks[1:]]
        self.streams: int = min([*others, *(engine.streams for engine in engines)])
        self._places = Places(self.streams)
        on_gpu = [engine for engine in engines if isinstance(engine, CudaEngine)]
        self.path: DevicePath | None = None
        if on_gpu:
            self.path = DevicePath(on_gpu, self.plan, batch=self.batch, share=self._gpu_share)

    def recipe(self, shape: tuple[int, ...], buffer_dim: int | None = None) -> WindowRecipe:
        """Return the window recipe of a prepared volume of this shape, see `recipe_of`."""
        batch = self.batch if self.path is None else self.path.batch
        return recipe_of(self.plan, shape, batch=batch, buffer_dim=buffer_dim)

    def describe_engines(self) -> list[str]:
        """Describe engine and device of each network."""
        return [f"{one.name} on {one.device}" for walk in self._all for one in walk.engines]

    def estimate_memory(
        self, grid: Grid, *, keeps_image: bool = True, keeps_probs: bool = False
    ) -> MemoryEstimate:
        """The peak memory of segmenting an image on this grid, beforehand.

        Args:
            grid: Grid of the image as stored.
            keeps_image: Whether the caller keeps the image meanwhile; `predict_files` does not.
            keeps_probs: Whether probabilities are requested.
        """
        around = Surroundings(self._base_bytes, 0, keeps_image, keeps_probs)
        return memory_of(self._all, grid, around)

    @cached_property
    def probe(self) -> tuple[int, int]:
        """Bytes kept after a first batch of windows, and those of each batch at its peak."""
        windows = torch.zeros((self.batch, self.plan.network_channels, *self.plan.patch_size))
        network = self._network(CaseObserver(self.plan.encoding))
        before, _ = resident_bytes(), network(windows)
        return max(0, resident_bytes() - before), growth_of(lambda: network(windows))

    def require_memory(
        self, grid: Grid, *, keeps_image: bool = True, keeps_probs: bool = False
    ) -> None:
        """Validate the memory of an image before it is prepared.

        It must fit into `memory_gb` where that is given, else into what is free.

        Args:
            grid: Grid of the image as stored.
            keeps_image: Whether the caller keeps the image while it is segmented.
            keeps_probs: Whether probabilities are requested.

        Raises:
            UsageError: It needs more memory than is allowed.
            ImageError: It needs more memory than is free (`out_of_memory`).
            GeometryError: Its spacing gives it a size out of all bounds (`absurd_spacing`).
        """
        if self.memory_gb is None:
            require_free(self._all, grid, self.device, keeps_probs=keeps_probs)
            return
        estimate = self.estimate_memory(grid, keeps_image=keeps_image, keeps_probs=keeps_probs)
        if estimate.total_gb > self.memory_gb:
            raise UsageError(
                f"the image needs {estimate}, {self.memory_gb:g} GB are allowed: allow as much, or "
                "use a model of a smaller window or a coarser spacing"
            )

    def _network(self, case: CaseObserver) -> NetworkFn:
        network = averaged(self.engines, case.agreement)  # one engine: as it is
        if self.tta and self.path is None:  # a GPU's graphs contain the mirror images
            axes, own = self.plan.inference.mirror_axes, self.plan.encoding.num_channels
            network = mirrored(network, axes, num_maps=own)
        return case.parted(network) if self._request.shows_members else network
