"""The gc stage: lists what a cache no longer needs, and deletes it when the user asks for that."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from pipeline.leases.claim import described
from pipeline.leases.lease import WHOLE_LEASE, leased, list_claims
from pipeline.recipes import recipe_of
from pipeline.text_table import sized
from pipeline.verify.leftovers import Leftover, delete, find_unnamed, spent_details, stale_uploads
from pipeline.verify.options import GcOptions
from pipeline.workers.progress import Say
from storage_schemas.cache import Cache
from storage_schemas.format.errors import Problem, SettingError, first_few
from storage_schemas.objects.pending_uploads import PendingUpload, abort_upload


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """What can be deleted."""

    objects: tuple[Leftover, ...]
    """In the order in which they are deleted."""
    uploads: tuple[PendingUpload, ...]
    """Uploads to S3 that never ended."""
    kept: tuple[Leftover, ...]
    """Files of others, which stay."""

    def __str__(self) -> str:
        uploads = f", and {len(self.uploads)} unfinished uploads" if self.uploads else ""
        return f"{len(self.objects)} objects, {sized(sum(leftover.bytes for leftover in self.objects))}{uploads}"


def collect_garbage(cache: Cache, options: GcOptions, say: Say) -> None:
    """List what can be deleted; with `options.delete`, delete it under the lease of the whole cache.

    Args:
        cache: the cache.
        options: which details and uploads count, and whether anything is deleted.
        say: takes each line.

    Raises:
        MissingError: there is no cache.
        BusyError: something is to be deleted while another run writes.
        CorruptionError: a manifest or a commit record is damaged, so what nothing names is not known.
        SettingError: `options.foreign` names no file of others.
        StorageError: there is a link in the cache, or the store fails.
    """
    cache.require()
    if options.delete:
        _delete(cache, options, say)
        return
    garbage = find_garbage(cache, options, say)
    for claim in list_claims(cache.store):
        if claim.stale:
            say(f"gc: {claim.name}, of a run that has ended, can be deleted too")
        else:
            say(f"gc: nothing can be deleted now: {claim.lease} is being written by {described(claim)}")
    say(f"gc: {garbage}, can be deleted; nothing is deleted without --delete")


def find_garbage(cache: Cache, options: GcOptions, say: Say) -> Garbage:
    """Find what can be deleted, and say the name of each object and upload."""
    views = cache.views_manifest()
    spent = spent_details(cache, views, recipe_of(options.recipe).teachers) if options.details and views else []
    unnamed, uploads = find_unnamed(cache), stale_uploads(cache, options.uploads_older_than)
    if uploads is None:
        say("gc: this server does not list unfinished uploads; its own tools, or a lifecycle rule, can delete them")
    _require_foreign(options.foreign, unnamed)
    kept = [leftover for leftover in unnamed if leftover.is_foreign and leftover.name not in options.foreign]
    garbage = Garbage(
        objects=(*spent, *(leftover for leftover in unnamed if leftover not in kept)),
        uploads=tuple(uploads or ()),
        kept=tuple(kept),
    )
    for leftover in garbage.objects:
        say(f"  {leftover.name}")
    for leftover in garbage.kept:
        say(f"  {leftover.name}: Stillhouse did not write it, and it stays (--foreign {leftover.name} deletes it)")
    for upload in garbage.uploads:
        say(f"  {upload.name}: an upload that began at {upload.begun:%Y-%m-%d %H:%M} and never ended")
    return garbage


def _require_foreign(names: Sequence[str], unnamed: Sequence[Leftover]) -> None:
    """Refuse names that are not those of files of others."""
    foreign = [leftover.name for leftover in unnamed if leftover.is_foreign]
    fix = f"there are {', '.join(first_few(foreign)) or 'none'}"
    found = "is no file of others in this cache"
    if problems := [Problem(place=name, found=found, fix=fix) for name in names if name not in foreign]:
        raise SettingError("--foreign", problems)


def _delete(cache: Cache, options: GcOptions, say: Say) -> None:
    with leased(cache, WHOLE_LEASE, "gc") as lease:
        garbage = find_garbage(lease.cache, options, say)
        delete(lease.cache, garbage.objects)
        for upload in garbage.uploads:
            abort_upload(cache.store, upload)
    for name in lease.cleared:
        say(f"gc: {name}, of a run that has ended, deleted")
    say(f"gc: {garbage}, deleted")
