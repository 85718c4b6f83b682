"""Reading chunks through zarr-python, and comparing them byte for byte with what our own reader gives.

Our reader takes an array's type and shape from the manifests, and checks each chunk against the commit log.
zarr-python knows neither: it goes by `zarr.json` and the shards alone, as any other program does. It is imported only
here, and only when it is asked for.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, final

import numpy as np
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

from pipeline.config import RunConfig
from pipeline.verify.problems import Findings, collecting
from pipeline.verify.records import record_problems
from pipeline.verify.shard_task import CheckTask
from pipeline.verify.store_file_system import StoreFileSystem
from pipeline.verify.tasks import in_pool
from pipeline.verify.verdict import ReadIndependently
from pipeline.verify.worker import CheckReport
from pipeline.verify.zarr_metadata import metadata_name
from storage_schemas.cache import Cache
from storage_schemas.command_line import missing_package
from storage_schemas.commits import ShardRecord
from storage_schemas.format.compressor import numcodecs_imported
from storage_schemas.format.errors import AbstractStillhouseError, CorruptionError, Problem, StorageError
from storage_schemas.format.layout import FEATURES
from storage_schemas.format.manifest import TeacherManifest
from storage_schemas.format.seeds import generator
from storage_schemas.format.shard_format import ArraySpec
from storage_schemas.objects.refusals import is_of_the_system, refused
from storage_schemas.objects.store import Store
from storage_schemas.read_latents import LATENT_ARRAYS, latents_group
from storage_schemas.read_phi_s import PHI_S_ARRAYS
from storage_schemas.sharded_array import ShardedArray
from storage_schemas.small_arrays import read_small_array

Result = TypeVar("Result")
MEND = (
    "mend first what else is named of this array; if nothing else is, one of the two readers is wrong: "
    "do not train on this array, and report it"
)
"""What to do where zarr-python does not give what our reader gives."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CompareTask:
    """Chunks of one sharded array, for both readers."""

    spec: ArraySpec
    """The array as the manifests imply it."""
    records: Mapping[int, ShardRecord]
    """Commit record of its shards, by shard number."""
    rows: tuple[int, ...]
    """Row slots to read; each holds a committed view."""
    fixes: Mapping[int, str]
    """What to do where a shard is damaged, by shard number."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CompareReport:
    """The result of reading chunks of one array with both readers."""

    problems: tuple[Problem, ...]
    chunks: int
    """Chunks that are equal."""
    bytes: int
    """Their size, decoded."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkComparer:
    """The worker of `verify --independent`."""

    store: Store

    def compare(self, task: CompareTask) -> CompareReport:
        """Read the chunks of one sharded array with both readers, and go on after every problem."""
        spec, problems, equal = task.spec, list[Problem](), 0
        with collecting(problems, metadata_name(spec.path), MEND):
            theirs = self.store.checked(partial(_opened, self.store, spec.path, spec.dtype, spec.entry_shape, axis=1))
            ours = ShardedArray(store=self.store, spec=spec, records=task.records)
            for row in task.rows:
                shard, entry = row // spec.rows_per_shard, None
                place = f"{spec.path} shard {shard} row {row}"
                with collecting(problems, place, task.fixes[shard]):
                    entry = ours.read([row])[0]
                if entry is None:
                    continue
                with collecting(problems, place, MEND):
                    self.store.checked(partial(_require_equal, entry, theirs, row, place))
                    equal += 1
        return CompareReport(problems=tuple(problems), chunks=equal, bytes=equal * spec.entry_bytes)

    def compare_small(self, path: str) -> CompareReport:
        """Read a small array with both readers."""
        try:
            values = self.store.checked(partial(read_small_array, self.store, path))
        except StorageError:
            raise
        except AbstractStillhouseError:
            # the checks of PHI-S and of statistics read it too, and name what is damaged
            return CompareReport(problems=(), chunks=0, bytes=0)
        problems: list[Problem] = []
        with collecting(problems, path, MEND):
            theirs = self.store.checked(partial(_opened, self.store, path, values.dtype.name, values.shape, axis=0))
            self.store.checked(partial(_require_equal, values, theirs, ..., path))
        return CompareReport(problems=tuple(problems), chunks=not problems, bytes=0 if problems else values.nbytes)


def require_zarr() -> str:
    """Return the version of zarr-python.

    Raises:
        MissingError: it is not installed.
    """
    try:
        with numcodecs_imported():
            import zarr
    except ModuleNotFoundError as error:
        raise missing_package(error, "pipeline") from error
    return zarr.__version__


def read_independently(
    cache: Cache,
    teachers: Iterable[TeacherManifest],
    checked: Sequence[tuple[CheckTask, CheckReport]],
    count: int,
    run: RunConfig,
    findings: Findings,
) -> ReadIndependently:
    """Read `count` chunks of every array through zarr-python, and compare them with what our reader gives.

    Only chunks of committed views are drawn. zarr-python gives fill values for all others, which say nothing.

    Args:
        cache: the cache.
        teachers: whose PHI-S and statistics are read too; each of these arrays is one chunk.
        checked: every committed shard, and what its check found.
        count: how many chunks; all where an array has fewer.
        run: executor and workers.
        findings: problems are added here.
    """
    version, tasks = require_zarr(), list(_compare_tasks(checked, count))
    comparer = ChunkComparer(store=cache.store)
    factory, weights = partial(ChunkComparer, store=cache.store), [len(task.rows) for task in tasks]
    reports = in_pool(factory, ChunkComparer.compare, tasks, weights, run, "verify --independent")
    reports += [comparer.compare_small(path) for path in _small_arrays(cache, teachers)]
    for report in reports:
        findings.problems.extend(report.problems)
    return ReadIndependently(
        version=version,
        arrays=sum(report.chunks > 0 for report in reports),
        chunks=sum(report.chunks for report in reports),
        bytes=sum(report.bytes for report in reports),
    )


def _compare_tasks(checked: Iterable[tuple[CheckTask, CheckReport]], count: int) -> Iterator[CompareTask]:
    """Yield a task for each array with committed views."""
    shards: dict[str, list[tuple[CheckTask, CheckReport]]] = {}
    for task, report in checked:
        if _is_usable(task, report):
            shards.setdefault(task.name, []).append((task, report))
    for of_unit in shards.values():
        unit, fixes = of_unit[0][0].unit, {task.shard: task.fix for task, _ in of_unit}
        for spec in unit.arrays if unit is not None else ():
            records = {
                task.shard: record for task, report in of_unit for record in report.records if record.array == spec.path
            }
            rows = drawn_rows(spec, records, count)
            hit = {row // spec.rows_per_shard for row in rows}
            if rows:
                yield CompareTask(
                    spec=spec,
                    records={shard: records[shard] for shard in hit},
                    rows=rows,
                    fixes={shard: fixes[shard] for shard in hit},
                )


def _is_usable(task: CheckTask, report: CheckReport) -> bool:
    """Say whether a shard's commit record can be read, and is what its unit implies."""
    if task.unit is None or not report.records:
        return False
    return not list(record_problems(task.unit, task.shard, report.records, task.record, task.fix))


def drawn_rows(spec: ArraySpec, records: Mapping[int, ShardRecord], count: int) -> tuple[int, ...]:
    """Draw row slots with a committed view, each as likely as any other.

    Args:
        spec: the array.
        records: its commit records by shard number. The draw depends on the array and on these alone.
        count: how many; every row where there are fewer.

    Returns:
        The rows, sorted.
    """
    shards = [records[shard] for shard in sorted(records)]
    stops = np.cumsum([record.rows for record in shards], dtype=np.int64)
    total = int(stops[-1]) if shards else 0
    if total == 0:
        return ()
    draws = generator(("independent", shards[0].identity, spec.path))
    drawn = np.sort(draws.choice(total, min(count, total), replace=False))
    # the n-th committed view lies in the shard whose views end after it
    within = np.searchsorted(stops, drawn, side="right")
    shifts = np.array([record.first_row + record.rows for record in shards]) - stops
    return tuple((drawn + shifts[within]).tolist())


def _small_arrays(cache: Cache, teachers: Iterable[TeacherManifest]) -> Iterator[str]:
    """Yield the paths of the small arrays: PHI-S, and what the statistics say that they consist of."""
    for manifest in teachers:
        name = manifest.spec.name
        yield from (f"teachers/{name}/phi_s/{array}" for array in PHI_S_ARRAYS)
        if "latents" in manifest.identity:
            yield from (f"{latents_group(name)}/{array}" for array in LATENT_ARRAYS)
        try:
            attributes = cache.attributes(f"teachers/{name}/stats") or {}
        except StorageError:
            raise
        except AbstractStillhouseError:
            continue  # the check of the statistics has named it
        yield from (f"teachers/{name}/stats/{array}" for array in attributes.get("arrays", ()))


def _opened(store: Store, path: str, dtype: str, shape: tuple[int, ...], *, axis: int) -> Any:
    """Open an array through zarr-python: it must have this type, and this shape from an axis on."""
    with numcodecs_imported():
        import zarr
        from zarr.storage import FsspecStore, LocalStore

    if store.is_local:
        storage: Any = LocalStore(store.path(FEATURES), read_only=True)
    else:
        file_system = AsyncFileSystemWrapper(StoreFileSystem(store), asynchronous=True)
        storage = FsspecStore(file_system, path=FEATURES, read_only=True)
    place = metadata_name(path)
    array = _through_zarr(partial(zarr.open_array, storage, path=path, mode="r", zarr_format=3), "open", place)
    if (array.dtype, array.shape[axis:]) != (np.dtype(dtype), shape):
        found = f"zarr-python reads {array.dtype} {array.shape[axis:]}, the manifests imply {dtype} {shape}"
        raise CorruptionError("array", [Problem(place=place, found=found)])
    return array


def _through_zarr(ask: Callable[[], Result], verb: str, place: str) -> Result:
    try:
        return ask()
    except AbstractStillhouseError:
        raise  # the store fails, and says so itself
    except Exception as error:  # zarr-python and its codecs raise errors of many kinds
        if isinstance(error, OSError) and is_of_the_system(error):
            raise refused(error.filename or place, error) from error
        found = f"zarr-python cannot {verb} it: {type(error).__name__}: {' '.join(str(error).split())}"
        raise CorruptionError("array", [Problem(place=place, found=found)]) from error


def _require_equal(ours: np.ndarray, theirs: Any, where: Any, place: str) -> None:
    """Compare entries of one type and shape byte for byte: NaN too, and the sign of zero.

    Args:
        ours: what our reader gives.
        theirs: the array, opened by zarr-python.
        where: which of its entries.
        place: array, shard and row, for the error.
    """
    read = _through_zarr(partial(theirs.__getitem__, where), "read", place)
    left, right = (np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8) for values in (ours, read))
    if not np.array_equal(left, right):
        different = np.flatnonzero(left != right)
        found = f"zarr-python reads {len(different)} of {len(left)} bytes differently, the first at byte {different[0]}"
        raise CorruptionError("array", [Problem(place=place, found=found)])
