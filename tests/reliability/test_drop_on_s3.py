"""A teacher of a cache on S3 is dropped with nothing else, though deletions fail on the way, or the run ends there."""

from dataclasses import replace
from pathlib import Path

import pytest
from disturbed_runs import contents
from fault_proxy import Fault, FaultProxy
from tiny_caches import MADE, TinyCache, write_images

from pipeline.verify.drop import drop_teacher
from pipeline.verify.options import DropOptions, VerifyOptions
from pipeline.verify.stage import verify_cache
from storage_schemas.cache import Cache
from storage_schemas.format.errors import StorageError
from storage_schemas.objects.publish import publish_bytes
from storage_schemas.objects.retry_policy import RetryPolicy
from storage_schemas.objects.store import Store


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished cache of two teachers, in a folder."""
    root = tmp_path_factory.mktemp("tiny")
    tiny = TinyCache(where=root / "cache", images=write_images(root / "images"))
    for name in ("direct", "fixed"):
        tiny.extract(MADE, ("direct", "fixed"), name)
        tiny.measure(name)
    return tiny.where


@pytest.mark.slow
def test_a_teacher_on_s3_goes_whole_through_faults_and_after_an_outage(
    local: Path, bucket: str, proxy: FaultProxy
) -> None:
    cache = Cache(store=Store(uri=f"{bucket}/cache", retries=RetryPolicy(outage=3.0, silence=2.0, first_wait=0.02)))
    for name in Store(uri=str(local)).listing(""):
        publish_bytes(cache.store, name, (local / name).read_bytes())
    before, options = contents(cache.store), DropOptions(teacher="fixed", delete=True)
    proxy.arm(Fault(kind="503", first=7, matching="DELETE "))
    with pytest.raises(StorageError):
        drop_teacher(cache, options, str)
    proxy.arm()
    for name in cache.store.listing("leases"):
        cache.store.remove(name)  # the claim of a run ends with its process, and this process goes on
    verdict = verify_cache(cache, VerifyOptions(quick=True))
    assert verdict.problems == ()
    assert [facts.unit for facts in verdict.unfinished] or verdict.leftovers
    proxy.arm(*(Fault(kind=kind, first=n, last=n, matching="DELETE ") for n, kind in ((2, "lost"), (4, "reset"))))
    patient = replace(cache, store=replace(cache.store, retries=RetryPolicy(outage=30.0, silence=5.0)))
    drop_teacher(patient, options, str)
    assert len(proxy.struck) == 2
    of_teacher = ("features.zarr/teachers/fixed/", "tables/shards/teachers/fixed/", "tables/placements/fixed/")
    after = {name: digest for name, digest in contents(cache.store).items() if not name.startswith("leases/")}
    assert after == {name: digest for name, digest in before.items() if not name.startswith(of_teacher)}
    assert verify_cache(cache, VerifyOptions()).problems == ()
