"""Worker processes read caches in a folder and on S3, however they are started, and refuse as the parent does."""

from collections.abc import Iterator, Sequence
from multiprocessing import forkserver
from pathlib import Path

import pytest
import torch
from disturbed_runs import RETRIES
from fault_proxy import Fault, FaultProxy
from torch.utils.data import DataLoader
from two_sources import TwoSources

from storage_schemas.cache import Cache
from storage_schemas.format.errors import MissingError, StorageError
from storage_schemas.objects.retry_policy import RetryPolicy
from storage_schemas.objects.store import Store
from trainer.data.batch import ViewBatch
from trainer.data.dataset import BatchRequest, CachedBatches, heldout_requests
from trainer.data.loader import open_loader
from trainer.data.source import Source, open_source
from trainer.settings.running import RunningSettings

METHODS = ("fork", "forkserver", "spawn")
LIMIT = 30
"""A worker that takes longer (seconds) counts as hanging."""


@pytest.fixture(autouse=True)
def _fresh_variables() -> Iterator[None]:
    """Start a new fork server: one that other tests started passes on the variables of that time."""
    forkserver._forkserver._stop()
    yield
    forkserver._forkserver._stop()


def source_of(uri: str, outage: float = 20.0) -> Source:
    return open_source(Cache(store=Store(uri=uri, retries=RetryPolicy(**RETRIES | {"outage": outage}))))


def asked(source: Source) -> list[tuple[BatchRequest, ...]]:
    return [(request,) for request in heldout_requests(source, {"low": 1, "high": 1}, seed=0)]


def same(batches: Sequence[ViewBatch], other: Sequence[ViewBatch]) -> bool:
    return all(
        torch.equal(left.pixels, right.pixels)
        and all(torch.equal(left.targets[name].spatial, right.targets[name].spatial) for name in left.targets)
        for left, right in zip(batches, other, strict=True)
    )


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # what the test is about
@pytest.mark.usefixtures("proxy")
@pytest.mark.parametrize("method", METHODS)
def test_workers_read_what_their_parent_reads_though_it_has_used_the_store(
    cached: tuple[str, list[str]], undisturbed: Path, method: str
) -> None:
    sources = [CachedBatches(source=source_of(uri)) for uri in (str(undisturbed / "cache"), cached[0])]
    requests = asked(sources[0].source)
    expected = [[source[request] for source in sources] for request in requests]
    assert all(same(*both) for both in expected)
    loader = DataLoader(
        TwoSources(sources),
        batch_size=None,
        sampler=requests,
        num_workers=1,
        multiprocessing_context=method,
        timeout=LIMIT,
    )
    read = list(loader)
    assert len(read) == len(requests) > 1
    assert all(same(*pair) for got, want in zip(read, expected, strict=True) for pair in zip(got, want, strict=True))


def test_an_outage_met_by_a_reading_process_arrives_as_it_was_said_there(
    cached: tuple[str, list[str]], proxy: FaultProxy
) -> None:
    source = source_of(cached[0], outage=1.0)
    proxy.arm(Fault(kind="503", matching="/c/"))
    loader = open_loader(CachedBatches(source=source), asked(source), RunningSettings(workers=1))
    with pytest.raises(StorageError, match=r"^storage failed:\n  s3://\S+/c/\S+: failed \d+ times in \d seconds"):
        list(loader)
    assert proxy.struck


@pytest.mark.slow
def test_a_store_in_the_memory_of_one_process_is_refused_by_another(undisturbed: Path) -> None:
    local, memory = Store(uri=str(undisturbed / "cache")), Store(uri="memory://workers/cache")
    for name in local.listing(""):
        memory.filesystem.pipe_file(memory.path(name), local.read(name))
    source = source_of(memory.uri)
    loader = open_loader(CachedBatches(source=source), asked(source), RunningSettings(workers=1))
    with pytest.raises(MissingError, match=r"memory://workers/cache/\S+: is not there"):
        list(loader)
