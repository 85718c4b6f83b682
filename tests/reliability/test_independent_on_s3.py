"""zarr-python reads a cache on S3 as our reader does, and no passing fault is taken for damage."""

from collections.abc import Sequence

import pytest
from disturbed_runs import FEW_RETRIES, RETRIES, faults
from fault_proxy import Fault, FaultKind, FaultProxy

from pipeline.verify.options import VerifyOptions
from pipeline.verify.stage import verify_cache
from pipeline.verify.verdict import Verdict
from storage_schemas.cache import Cache
from storage_schemas.format.errors import StorageError
from storage_schemas.objects.persist import RESUMES
from storage_schemas.objects.retry_policy import RetryPolicy
from storage_schemas.objects.store import Store

KINDS: tuple[FaultKind, ...] = ("500", "503", "slowdown", "reset", "cut", "stall", "slow", "flip", "lost")


def verified(uri: str, **retries: float) -> Verdict:
    store = Store(uri=uri, retries=RetryPolicy(**retries))
    return verify_cache(Cache(store=store), VerifyOptions(quick=True, independent=2))


@pytest.mark.slow
def test_zarr_python_reads_a_cache_on_s3_as_our_reader_does_through_faults_of_every_kind(
    cached: tuple[str, Sequence[str]], proxy: FaultProxy
) -> None:
    at_peace = verified(cached[0], **RETRIES)
    assert at_peace.problems == ()
    assert at_peace.independent is not None
    assert at_peace.independent.chunks > at_peace.independent.arrays
    requests = len(proxy.requests)
    proxy.arm(*faults(range(2, 2 * requests, 7), KINDS))
    disturbed = verified(cached[0], **RETRIES)
    assert len(proxy.struck) > 20
    assert disturbed.independent == at_peace.independent
    assert disturbed.problems == ()
    print(f"{requests} requests, {len(proxy.struck)} faults")


@pytest.mark.parametrize("kind", ["503"])
def test_an_outage_is_not_taken_for_damage_to_be_deleted(
    cached: tuple[str, Sequence[str]], proxy: FaultProxy, kind: FaultKind
) -> None:
    proxy.arm(Fault(kind=kind, matching="/pixels/c/"))
    with pytest.raises(StorageError) as refusal:
        verified(cached[0], **FEW_RETRIES | {"outage": 0.5})
    for problem in refusal.value.problems:
        assert "failed " in problem.found
        assert problem.fix == RESUMES
