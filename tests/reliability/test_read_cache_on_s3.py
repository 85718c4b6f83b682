"""A read cache in front of a real S3 server: no process requests again what was read once."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from disturbed_runs import RETRIES, Runner, weights
from fault_proxy import FaultProxy

from storage_schemas.cache import Cache
from storage_schemas.objects.retry_policy import RetryPolicy
from storage_schemas.objects.store import Store
from storage_schemas.read_cache import open_read_cache
from trainer.data.dataset import BatchRequest, CachedBatches, heldout_requests, training_request
from trainer.data.order import StepPart
from trainer.data.source import Source, open_source

ROOM = 10**8


def of_shards(proxy: FaultProxy) -> list[str]:
    """Return the requests for parts of array shards."""
    return [line for line in proxy.requests if any(f"/{name}/c/" in line for name in ("pixels", "spatial", "summary"))]


def asked(source: Source) -> list[BatchRequest]:
    """Return a request for each view."""
    training = [
        training_request(StepPart(view_set=view_set, rows=np.array([row]), epochs=np.array([0])), seed=0)
        for view_set, of_set in source.sets.items()
        for row in of_set.rows["train"].tolist()
    ]
    return [*training, *heldout_requests(source, {"low": 1, "high": 1}, seed=0)]


def digests(dataset: CachedBatches, requests: list[BatchRequest]) -> list[str]:
    """Return the SHA-256 of the batch for each request."""
    return [
        hashlib.sha256(
            b"".join(
                tensor.numpy().tobytes()
                for tensor in (batch.pixels, *(target.spatial for target in batch.targets.values()))
            )
        ).hexdigest()
        for batch in (dataset[(request,)][0] for request in requests)
    ]


def test_a_second_epoch_asks_the_store_for_no_view(
    cached: tuple[str, list[str]], proxy: FaultProxy, tmp_path: Path
) -> None:
    store = Store(uri=cached[0], retries=RetryPolicy(**RETRIES))
    source = open_source(Cache(store=store, kept=open_read_cache(str(tmp_path / "kept"), ROOM, store)))
    requests, counts, sums = asked(source), [], []
    for order in (requests, requests[::-1]):
        proxy.arm()
        dataset = CachedBatches(source=source)  # as another process opens it
        sums.append(sorted(digests(dataset, order)))
        counts.append(len(of_shards(proxy)))
    assert counts[0] > len(requests)
    assert counts[1] == 0
    assert sums[0] == sums[1]
    print(f"requests for views and indices: {counts[0]}, then {counts[1]}")


@pytest.mark.slow
def test_a_second_run_learns_the_same_from_what_the_first_kept(
    cached: tuple[str, list[str]], runner: Runner, proxy: FaultProxy, undisturbed: Path, tmp_path: Path
) -> None:
    kept = {"read_cache": str(tmp_path / "kept"), "read_cache_bytes": ROOM}
    counts = []
    for name in ("first", "second"):
        proxy.arm()
        ended = runner.run("train", cached[0], folder=str(tmp_path / name), retries=RETRIES, **kept)
        assert ended.status == 0, ended.said
        counts.append(len(of_shards(proxy)))
        assert weights(tmp_path / name) == weights(undisturbed / "run")
    assert counts[0] > 0
    assert counts[1] == 0
    print(f"requests for views and indices: {counts[0]}, then {counts[1]}")
