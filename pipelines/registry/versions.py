"""Model versions: register, name by alias, resolve, roll back.

A version is a package with its model card. `champion` is in use, `challenger` is its
candidate successor, `previous` the champion before. Each command that takes a model accepts
`models:/NAME@alias`, `models:/NAME/3`, a package folder and a zip of one.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pipelines.registry.cache import Known, cached_package, recall, remember
from pipelines.registry.card import card_of
from pipelines.registry.promotion_lock import promotion_lock
from pipelines.registry.reference import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    Resolved,
    Version,
    changes_of,
    check_name,
    contract,
    contract_text,
    is_lock,
    is_registered,
    one_version,
    parse_reference,
    resolve_path,
    version_record,
)
from pipelines.tracking.address import tracking_uri, without_password
from pipelines.tracking.delivery import translated
from pipelines.tracking.held_out import score_tags
from pipelines.tracking.pyfunc_form import MODEL_FOLDER, PACKAGE_INSIDE, package_hash, save_pyfunc
from pipelines.tracking.runs import connect_quietly, open_registration_run
from pipelines.tracking.tags import CONTRACT_TAG, HASH_TAG, HELD_OUT
from segmed.errors import ServiceError, UsageError
from segmed.package import ModelPackage
from segmed.package.check import check_package
from segmed.plan import Plan

logger = logging.getLogger(__name__)


class Registry:
    """The model registry of one MLflow server, or of the embedded database of a folder.

    Args:
        folder: Working folder, for the embedded database.
        uri: Where to; `MLFLOW_TRACKING_URI` or the embedded database by default.
    """

    def __init__(self, folder: Path = Path(), *, uri: str | None = None) -> None:
        self.folder = folder
        self.uri = uri or tracking_uri(folder)
        self._client: MlflowClient | None = None

    @property
    def client(self) -> MlflowClient:
        """A client of a server that answers."""
        if self._client is None:
            self._client = connect_quietly(self.uri)
        return self._client

    def register(
        self,
        package_dir: Path,
        name: str,
        run_id: str | None = None,
        alias: str | None = None,
        *,
        tags: Mapping[str, str] | None = None,
        description: str | None = None,
    ) -> Version:
        """Make a package a version of a model; the same package only once.

        Args:
            package_dir: The package folder.
            name: Name of the model.
            run_id: Run that chose it, for a package that no run of this server has logged; one is
                made if left out.
            alias: Alias to give the version.
            tags: More tags for the version.
            description: Model card, as Markdown; made from the package if left out.

        Raises:
            PackageError: The package is damaged.
            UsageError: Its labels, channels or spacing differ from the model's earlier versions.
        """
        check_name(name)
        package = check_package(package_dir)
        known = [entry for entry in self.versions(name) if entry.hash == package.hash]
        if known:
            version = known[-1]
        else:
            self._require_same_contract(name, package.plan)
            version = self._create(
                package_dir, package, name, run_id, tags or {}, description or card_of(package)
            )
        if alias is not None:
            self.set_alias(name, alias, version.version)
        return self.version(name, version.version)

    def _create(
        self,
        package_dir: Path,
        package: ModelPackage,
        name: str,
        run_id: str | None,
        tags: Mapping[str, str],
        description: str,
    ) -> Version:
        run_id = self._run_with(package.hash) or run_id
        if run_id is None:
            run_id = open_registration_run(self.client, self.uri, name, self.folder)
        self._log_model(package_dir, run_id)
        all_tags = {
            HASH_TAG: package.hash,
            "segmed.architecture": package.architecture,
            CONTRACT_TAG: contract_text(package.plan),
            **score_tags(package.provenance.get(HELD_OUT)),
            **tags,
        }

        def create() -> Any:
            if not self._has_model(name):
                try:
                    self.client.create_registered_model(name)
                except MlflowException:
                    if not self._has_model(name):
                        raise
            return self.client.create_model_version(
                name,
                source=f"runs:/{run_id}/{MODEL_FOLDER}",
                run_id=run_id,
                tags=all_tags,
                description=description,
                await_creation_for=0,
            )

        return version_record(translated(self.uri, create))

    def _log_model(self, package_dir: Path, run_id: str) -> None:
        """Log the servable form, unless the run has it already."""
        wanted = package_hash(package_dir)
        with tempfile.TemporaryDirectory(prefix="segmed-model-") as scratch:
            card = f"{MODEL_FOLDER}/{PACKAGE_INSIDE}/package.json"
            if self._has_artifact(run_id, card):
                got = translated(
                    self.uri, lambda: self.client.download_artifacts(run_id, card, scratch)
                )
                if json.loads(Path(got).read_text(encoding="utf-8"))["hash"] == wanted:
                    return
            target = save_pyfunc(package_dir, Path(scratch) / "pyfunc")
            translated(
                self.uri, lambda: self.client.log_artifacts(run_id, str(target), MODEL_FOLDER)
            )
            translated(self.uri, lambda: self.client.set_tag(run_id, HASH_TAG, wanted))

    def _run_with(self, wanted: str) -> str | None:
        """The run that logged this package already, as its training did."""
        everywhere = translated(self.uri, self.client.search_experiments)
        found = translated(
            self.uri,
            lambda: self.client.search_runs(
                [entry.experiment_id for entry in everywhere],
                filter_string=f"tags.`{HASH_TAG}` = '{wanted}'",
                max_results=1,
            ),
        )
        return str(found[0].info.run_id) if found else None

    def _has_artifact(self, run_id: str, path: str) -> bool:
        folder = path.rpartition("/")[0]
        entries = translated(self.uri, lambda: self.client.list_artifacts(run_id, folder))
        return any(entry.path == path for entry in entries)

    def _has_model(self, name: str) -> bool:
        return any(
            model.name == name for model in self.client.search_registered_models(f"name = '{name}'")
        )

    def _require_same_contract(self, name: str, plan: Plan) -> None:
        for other in self.versions(name)[:1]:
            before = json.loads(other.tags.get(CONTRACT_TAG, "{}"))
            now = contract(plan)
            changed = changes_of(before, now)
            if changed:
                raise UsageError(
                    f"the package is not a version of {name!r}: its {', '.join(changed)} differ "
                    f"from version {other.version} ({before.get(changed[0])} became "
                    f"{now[changed[0]]}); register it under another name"
                )

    def names(self) -> list[str]:
        """Every registered model."""
        models = translated(self.uri, self.client.search_registered_models)
        return sorted(model.name for model in models if not is_lock(model.name))

    def versions(self, name: str) -> list[Version]:
        """Versions of a model, newest first, with their aliases."""
        if not translated(self.uri, lambda: self._has_model(name)):
            return []
        found = translated(
            self.uri, lambda: list(self.client.search_model_versions(f"name = '{name}'"))
        )
        aliases = self._aliases(name)
        versions = [version_record(entry, aliases) for entry in found]
        return sorted(versions, key=lambda entry: int(entry.version), reverse=True)

    def version(self, name: str, selector: str) -> Version:
        """One version, by number or alias.

        Raises:
            UsageError: There is none.
        """
        known = self.versions(name)
        return one_version(name, selector, known, () if known else self.names())

    def _aliases(self, name: str) -> dict[str, str]:
        model = translated(self.uri, lambda: self.client.get_registered_model(name))
        return {str(alias): str(number) for alias, number in dict(model.aliases).items()}

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point an alias at a version."""
        translated(self.uri, lambda: self.client.set_registered_model_alias(name, alias, version))

    def set_version_tag(self, version: Version, key: str, value: str) -> None:
        """Set a tag of a version."""
        translated(
            self.uri,
            lambda: self.client.set_model_version_tag(version.name, version.version, key, value),
        )

    def promote(self, name: str, version: str, *, expected_champion: str | None) -> None:
        """Make a version champion and the former champion `previous`, as one step for others.

        Args:
            name: Registered model.
            version: Number of the version.
            expected_champion: Champion that the decision was made against; None for none.

        Raises:
            UsageError: Another promotion is going on, or the champion is not the expected one.
        """
        with self._swapping(name, expected_champion) as before:
            if before is not None and before != version:
                self.set_alias(name, PREVIOUS, before)
            self.set_alias(name, CHAMPION, version)
            if self._aliases(name).get(CHALLENGER) == version:
                self.client.delete_registered_model_alias(name, CHALLENGER)

    def rollback(self, name: str) -> Version:
        """Make the previous champion champion again; the two change places.

        Raises:
            UsageError: There is no previous champion.
        """
        before = self.version(name, PREVIOUS)
        with self._swapping(name, self._aliases(name).get(CHAMPION)) as current:
            self.set_alias(name, CHAMPION, before.version)
            if current is not None:
                self.set_alias(name, PREVIOUS, current)
        return self.version(name, CHAMPION)

    @contextmanager
    def _swapping(self, name: str, expected: str | None) -> Iterator[str | None]:
        with promotion_lock(self.client, self.uri, name):
            current = self._aliases(name).get(CHAMPION)
            if current != expected:
                raise UsageError(
                    f"the champion of {name!r} is version {current} now, the decision was made "
                    f"against {expected}; compare again"
                )
            yield current

    def resolve(self, reference: str | Path) -> Resolved:
        """Find the package that a reference means; fetch it once, keep it by its hash.

        Args:
            reference: `models:/NAME@alias`, `models:/NAME/3`, a package folder or a zip.

        Raises:
            UsageError: The reference names nothing.
            PackageError: The package is damaged.
            ServiceError: The server is away and the reference was never resolved here.
        """
        text = str(reference)
        if not is_registered(text):
            return resolve_path(Path(reference))
        name, selector = parse_reference(text)
        known = self._known(text, name, selector)
        path = cached_package(known.hash, lambda scratch: self._fetch(known, scratch))
        return Resolved(text, path, known.hash, known.name, known.version)

    def _known(self, reference: str, name: str, selector: str) -> Known:
        shown = without_password(self.uri)
        try:
            version = self.version(name, selector)
        except ServiceError:
            known = recall(shown, reference)
            if known is None:
                raise
            logger.warning(
                "the registry is away; %s is taken to be version %s as before",
                reference,
                known.version,
            )
            return known
        known = Known(name, version.version, version.hash, version.run_id)
        remember(shown, reference, known)
        return known

    def _fetch(self, known: Known, scratch: Path) -> Path:
        inside = f"{MODEL_FOLDER}/{PACKAGE_INSIDE}"
        got = translated(
            self.uri,
            lambda: self.client.download_artifacts(known.run_id, inside, str(scratch)),
        )
        return Path(got)
