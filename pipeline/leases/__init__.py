"""Leases: at most one run at a time writes one thing in a cache, on file systems and on object stores.

A *lease* is the right to write one thing: the views; one teacher's PHI-S, features and statistics; or, to delete, the
whole cache. Two leases *conflict* when they are the same, or when one is on the whole cache. A *claim* is the object by
which a run, its *owner*, takes a lease: `CACHE/leases/<lease>.<number>.claim`. It says which process on which machine
owns it. A claim is *stale* when its owner is known to have ended. A *rival* is a claim of another run that conflicts.

On a file system (`file_claims`) the kernel's file locks (`flock`) exclude. There is no clock and no expiry:
1. A run locks the mutex, the file `leases/door`. One process at a time does steps 2 and 3.
2. It lists the claims. A claim that nobody keeps locked is stale: the kernel drops a lock when its process ends,
   however it ends. If there is a rival, the run is refused. Otherwise it deletes the stale claims.
3. It makes its own claim, already locked, and unlocks the mutex.
4. It keeps its claim locked while it works. At the end it deletes the claim, again under the mutex.

On an object store (`object_claims`) nothing can be locked, and a compare-and-set cannot be relied on: some stores that
offer a write "only if nothing is there" let several writers win. So a run writes first and then looks:
1. It writes its claim, under a name that no other run uses.
2. It lists the claims. It owns the lease when its own claim is listed and no rival is. Of two runs that start together,
   at least the one that lists last sees the other, so they cannot both own the lease.
3. When two see each other, the younger claim's run withdraws (deletes its claim) and is refused; the older one waits
   for that. Age is the store's time of writing, then the name.
4. While it works, its owner writes a *heartbeat* beside the claim, `….alive`, every 15 s. A claim *expires*, and is
   stale, when its last heartbeat is 120 s old; the claim of a process that has ended on this machine is stale at once.
   Only times from one listing are compared, so no machine's clock matters. Two listings must agree before a stale claim
   is deleted, because a listing has no checksum.
5. At the end it deletes claim and heartbeat.

A run that is cut off for longer than the expiry may lose its claim to another run, and must not write any more. So
whatever counts (a shard, a commit record, a manifest, a PHI-S map) is published only after a check that the claim still
exists (`Store.claim`). This fences off a run that lost its lease, and the workers of a driver that died.

Door: lease, claim, names.
"""
