"""The extract stage: fit PHI-S once, freeze it, and store a teacher's features of every view. It resumes by itself."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from pipeline.compact.stage import seal_finished
from pipeline.config import Recipe, RunConfig, TeacherChoice
from pipeline.features.calibration import CalibrationShard, calibration_sample, require_tokens, require_varying
from pipeline.features.changes import History, continued, recorded, require_unchanged
from pipeline.features.extraction import Extraction, plan_extraction, read_inputs
from pipeline.features.frozen_phi_s import freeze_phi_s, read_frozen_phi_s, require_same_teacher
from pipeline.features.worker import FeatureExtractor, FeatureReport, FeatureTask, RunningIdentity
from pipeline.inventory.arrays import spatial_spec, summary_spec
from pipeline.inventory.commands import export_command
from pipeline.inventory.inputs import input_side
from pipeline.inventory.present import Commits, require_present
from pipeline.inventory.teacher_maps import teacher_spec
from pipeline.leases.lease import leased, teacher_lease
from pipeline.phi_s.moments import Moments, merge_each
from pipeline.views.rejected import require_few_rejected
from pipeline.views.stage import make_views, require_present_views
from pipeline.workers.device import peak_tflops
from pipeline.workers.open_pool import open_pool
from pipeline.workers.ordered import in_order
from pipeline.workers.pool import AbstractPool
from pipeline.workers.progress import Progress, Say, progress
from storage_schemas.cache import Cache
from storage_schemas.format.errors import IdentityError, MissingError, Problem
from storage_schemas.format.feature_storage import FeatureStorage
from storage_schemas.format.layout import features_unit
from storage_schemas.format.manifest import TeacherManifest
from storage_schemas.format.phi_s import PhiS
from storage_schemas.format.shard_format import ArraySpec
from storage_schemas.format.teacher import TeacherSpec
from storage_schemas.format.views import ViewSet
from storage_schemas.objects.publish import publish_group
from storage_schemas.rejected import rejected_count, rejected_line
from storage_schemas.shard_writer import create_array
from teachers.cost import tflop_per_input
from teachers.source import is_own

ExtractorPool = AbstractPool[FeatureExtractor]


def make_features(cache: Cache, recipe: Recipe, choice: TeacherChoice, data: str, run: RunConfig, say: Say) -> None:
    """Bring the features of one teacher to completion; cut the views that it needs first, where some are missing.

    Args:
        cache: where they go.
        recipe: what is made.
        choice: the teacher.
        data: the images; read only when views are missing.
        run: how the work is carried.
        say: takes lines for the user.

    Raises:
        MissingError, SettingError: as `make_views` and `plan_extraction`.
        IdentityError, BusyError: as `make_views` and `extract_teacher`.
    """
    inputs = read_inputs(cache, recipe, choice)
    if inputs.views is None or inputs.views.missing_shards():
        specs = {spec.name: spec for spec in map(teacher_spec, (*recipe.teachers, choice))}
        make_views(cache, recipe, list(specs.values()), data, run, say)
        inputs = read_inputs(cache, recipe, choice)
    else:
        require_present_views(cache, recipe.name, inputs.views)
        require_few_rejected(cache, inputs.views, run.max_rejected)
        if rejected := rejected_count(inputs.views.canvases.values()):
            say(f"extract {choice.name}: {rejected_line(cache.store.uri, rejected)}")
    extract_teacher(plan_extraction(cache, recipe, choice, inputs), run, say)


def extract_teacher(extraction: Extraction, run: RunConfig, say: Say) -> None:
    """Bring the features of all maps of one teacher to completion.

    Raises:
        IdentityError: the cache holds features under one of these names from other weights, settings or views, or from
            another cache.
        ContractError: the teacher returned NaN, infinity, or a channel that never changes. Nothing of it is stored.
        BusyError: another run is writing this teacher's features.
    """
    name = extraction.name
    _require_own(extraction)
    if extraction.maps[0].random_weights:
        say(f"extract {name}: RANDOM WEIGHTS ({extraction.choice.weights}): a demonstration, not a teacher")
    with ExitStack() as stack:
        if extraction.lacking or run.accept_change:
            lease = stack.enter_context(leased(extraction.cache, teacher_lease(name), f"extract {name}"))
            extraction = extraction.read_again(lease.cache)  # another run may have computed some in the meantime
        lacking = extraction.lacking
        commits = _commits(extraction)
        require_present(extraction.cache, extraction.recipe.name, commits)
        if not lacking and not run.accept_change:
            say(f"extract {name}: complete, nothing to do ({_totals(extraction, commits, run, say)})")
            return
        say(f"extract {name}: loads the teacher")
        pool = stack.enter_context(open_pool(extraction.worker(run), run, tasks=max(len(lacking), 1), forwards=True))
        [(_, running)] = pool.run(FeatureExtractor.identify, [None])
        phi_s = _read_phi_s(extraction, running.weights_sha256)
        histories = _histories(extraction, running, run.accept_change, say)
        if unfitted := [spec for spec in extraction.maps if spec.name not in phi_s]:
            phi_s |= _fit_phi_s(extraction, unfitted, running, pool, say)
        manifests = {
            spec.name: _declare(extraction, spec, running.weights_sha256, phi_s[spec.name], histories[spec.name])
            for spec in extraction.maps
        }
        tasks = [
            _task(extraction, view_set, shard, {name: manifests[name] for name in names}, running)
            for (view_set, shard), names in lacking.items()
        ]
        _write_features(extraction, tasks, pool, run, say)
        units = [features_unit(view_set, spec.name) for spec in extraction.maps for view_set in extraction.views.sets]
        seal_finished(extraction.cache, units, f"extract {name}", say)


def _task(
    extraction: Extraction,
    view_set: ViewSet,
    shard: int,
    manifests: Mapping[str, TeacherManifest],
    running: RunningIdentity,
) -> FeatureTask:
    digests = {name: manifest.digest for name, manifest in manifests.items()}
    storages = {name: FeatureStorage.of_identity(manifest.identity) for name, manifest in manifests.items()}
    return extraction.task(view_set, shard, digests, running.computed_by, storages)


def _require_own(extraction: Extraction) -> None:
    """Refuse to go on with features that come from another cache: only there can the missing ones be computed."""
    if names := [name for name, manifest in extraction.stored.manifests.items() if manifest.exported]:
        found = "was exported from another cache; only that cache can extract it"
        command = export_command(extraction.cache)
        fix = f"`{command}` finishes the export; a teacher of another name can be run over these views"
        problems = [Problem(place=f"teachers/{name}", found=found, fix=fix) for name in names]
        raise IdentityError(f"teacher {extraction.name}", problems)


def _histories(extraction: Extraction, running: RunningIdentity, accepted: str, say: Say) -> dict[str, History]:
    """Return the history of each map with this run in it; see `continued`."""
    stored = {spec.name: recorded(extraction, spec) for spec in extraction.maps}
    return {name: continued(name, history, running.computed_by, accepted, say) for name, history in stored.items()}


def _commits(extraction: Extraction) -> dict[str, Commits]:
    """Return the commit records of the maps, by unit."""
    units = [
        (features_unit(view_set, name), manifest.digest)
        for name, manifest in extraction.stored.manifests.items()
        for view_set in extraction.views.sets
    ]
    committed = extraction.stored.committed
    return {unit: extraction.cache.records(unit, identity, committed.get(unit, ())) for unit, identity in units}


def _totals(extraction: Extraction, commits: Mapping[str, Commits], run: RunConfig, say: Say) -> str:
    """Return how many views and bytes are stored, after checking that this teacher computed them."""
    # weights have the same digest on every device, and this machine may have no GPU
    running = extraction.worker(replace(run, device="cpu"))().identify(None)
    phi_s = _read_phi_s(extraction, running.weights_sha256)
    for spec in extraction.maps:
        manifest = _require_manifest(extraction, spec, running.weights_sha256, phi_s.get(spec.name))
        require_unchanged(spec.name, manifest.computed_by, running.computed_by, say)
    records = [record for shards in commits.values() for shard in shards.values() for record in shard if record.array]
    views = sum(record.rows for record in records if record.array.endswith("/spatial")) // len(extraction.maps)
    return f"{views} views, {sum(record.bytes for record in records) / 1e6:.1f} MB"


def _require_manifest(extraction: Extraction, spec: TeacherSpec, weights: str, phi_s: PhiS | None) -> TeacherManifest:
    manifest = extraction.stored.manifests.get(spec.name)
    if manifest is None or phi_s is None:
        found, fix = "does not record what computed the features below it", "make a new cache"
        raise MissingError(f"teacher {spec.name}", [Problem(place=f"teachers/{spec.name}", found=found, fix=fix)])
    require_same_teacher(spec.name, manifest.identity, extraction.identity(spec, weights, phi_s))
    return manifest


def _read_phi_s(extraction: Extraction, weights: str) -> dict[str, PhiS]:
    """Return the frozen PHI-S of those maps that have one."""
    frozen = {
        spec.name: read_frozen_phi_s(
            extraction.cache,
            spec.name,
            extraction.base_identity(spec, weights),
            has_features=spec.name in extraction.stored.manifests,
        )
        for spec in extraction.maps
    }
    return {name: phi_s for name, phi_s in frozen.items() if phi_s is not None}


def _fit_phi_s(
    extraction: Extraction, maps: Sequence[TeacherSpec], running: RunningIdentity, pool: ExtractorPool, say: Say
) -> dict[str, PhiS]:
    """Run the teacher over the calibration sample, fit PHI-S of some maps, and freeze it."""
    sample, wanted = _calibration_views(extraction), {spec.name: "" for spec in maps}
    tasks = [
        extraction.task(part.view_set, part.shard, wanted, running.computed_by, {}, first=part.views) for part in sample
    ]
    views = sum(part.views for part in sample)
    say(f"extract {extraction.name}: runs over {views} views to fit PHI-S")
    with progress(f"extract {extraction.name}, PHI-S", done=0, total=views) as bar:
        moments = merge_each(_counted(in_order(pool.run(FeatureExtractor.observe, tasks)), sample, bar))
    require_varying(moments, sample)
    frozen = {}
    for spec in maps:
        name, tokens = spec.name, moments[spec.name].count
        identity = extraction.base_identity(spec, running.weights_sha256)
        history, fidelity = (running.computed_by,), extraction.latent_fidelity
        frozen[name] = freeze_phi_s(extraction.cache, name, identity, moments[name], history, fidelity)
        say(f"extract {name}: PHI-S fitted on {tokens} tokens and frozen; φ = {frozen[name].scale:.4g}")
    return frozen


def _counted(
    observed: Iterable[Mapping[str, Moments]], sample: Sequence[CalibrationShard], bar: Progress
) -> Iterator[Mapping[str, Moments]]:
    """Pass on what was observed of each part of the sample, in order, and count its views."""
    for part, moments in zip(sample, observed, strict=True):
        bar.add(part.views)
        yield moments


def _calibration_views(extraction: Extraction) -> list[CalibrationShard]:
    config, channels = extraction.recipe.calibration, extraction.maps[0].dim

    def training(view_set: ViewSet, shard: int) -> int:
        return extraction.cache.shard_views(view_set, shard)["split"].to_pylist().count("train")

    sample = calibration_sample(extraction.views.sets, extraction.tokens, training, config, channels)
    require_tokens(sample, extraction.tokens, config, channels)
    return sample


def _declare(extraction: Extraction, spec: TeacherSpec, weights: str, phi_s: PhiS, history: History) -> TeacherManifest:
    """Write a map's arrays and manifest, unless the cache holds just these. Return the manifest."""
    cache, identity, arrays = extraction.cache, extraction.identity(spec, weights, phi_s), _arrays(extraction, spec)
    manifest = TeacherManifest(spec=spec, identity=identity, tokens=extraction.tokens, computed_by=history)
    stored = extraction.stored.manifests.get(spec.name)
    if stored is not None:
        require_same_teacher(spec.name, stored.identity, manifest.identity)
        # views may have been added since: then arrays become longer, or there are more of them
        known = dict(stored.tokens) == dict(manifest.tokens) and stored.computed_by == history
        if known and all(cache.array(array.path, {}).spec == array for array in arrays):
            return stored
    publish_group(cache.store, "teachers")
    for array in arrays:
        create_array(cache.store, array)
    publish_group(cache.store, f"teachers/{spec.name}", manifest.attributes())
    return manifest


def _arrays(extraction: Extraction, spec: TeacherSpec) -> list[ArraySpec]:
    sets, storage = extraction.views.sets.items(), extraction.storage(spec.name)
    arrays = [spatial_spec(view_set, shape, spec, storage) for view_set, shape in sets]
    if spec.summary_dim is not None:
        arrays += [summary_spec(view_set, shape, spec) for view_set, shape in sets]
    return arrays


def _write_features(
    extraction: Extraction, tasks: Sequence[FeatureTask], pool: ExtractorPool, run: RunConfig, say: Say
) -> None:
    """Run the teacher over every shard that lacks features, and store them."""
    name, total = extraction.name, sum(shape.grid.views for shape in extraction.views.sets.values())
    left = sum(len(task.manifest.grid.slots(task.shard)) for task in tasks)
    say(f"extract {name}: {left} of {total} views to do in {len(tasks)} shards")
    reports, costs = list[FeatureReport](), _tflop_per_input(extraction, tasks)
    with progress(f"extract {name}", done=total - left, total=total, report=run.report) as bar:
        for index, report in pool.run(FeatureExtractor.extract, tasks):
            reports.append(report)
            view_set, slots = tasks[index].view_set, tasks[index].manifest.grid.slots(tasks[index].shard)
            bar.peaks[report.device.place] = peak_tflops(report.device, extraction.precision)
            tokens, tflop = report.views * extraction.tokens[view_set] ** 2, report.forwards * costs.get(view_set, 0.0)
            rejected = len(slots) - report.views
            bar.add(report.views, rejected=rejected, tokens=tokens, tflop=tflop, size=report.bytes)
    forwards = sum(report.forwards for report in reports)
    say(f"extract {name}: {bar.views} views in {forwards} forwards, {bar.bytes / 1e6:.1f} MB in {bar.rate}")
    if extraction.choice.encoding == "int8":
        saturated = sum(report.saturated for report in reports)
        say(f"extract {name}: int8: {saturated} numbers saturated (at or beyond its largest value)")
    if coarser := sum(report.coarser for report in reports):
        say(f"extract {name}: pca8: {coarser} tokens have coarser steps, because they are too large for a byte")


def _tflop_per_input(extraction: Extraction, tasks: Sequence[FeatureTask]) -> Mapping[ViewSet, float]:
    """Return the cost of one input of each set (10¹² operations).

    There is none for a user's own class: the class would have to run for that. A library's model runs once on the meta
    device, without numbers.
    """
    source, spec = extraction.choice.source, extraction.maps[0]
    if is_own(source):
        return {}
    shapes = {task.view_set: task.manifest.geometry for task in tasks}
    return {view_set: tflop_per_input(source, input_side(spec, geometry)) for view_set, geometry in shapes.items()}
