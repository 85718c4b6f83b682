"""How many requests a cache's store is sent by commands that have nothing to do, and by the start of training.

    python -m tests.benchmarks.requests out/demo/cache [recipe]

Reads, listings and checks of existence are counted, in a finished cache of a recipe, on this machine: the store is a
folder that is read as one behind a network would be. A listing of S3 is one request for each 1,000 objects.
"""

import os
import sys
from contextlib import redirect_stdout
from pathlib import Path

from pipeline.__main__ import main
from storage_schemas.cache import Cache
from storage_schemas.objects.store import Store
from tests.counting_store import Requests, counted
from trainer.data.source import open_source


def requests_of(*command: str) -> Requests:
    """Run a command silently, and return its requests."""
    with counted() as requests, Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        status = main([*command, "--run.executor", "local"])
    if status:
        raise SystemExit(status)
    return requests


def print_row(name: str, requests: Requests) -> None:
    """Print a row of the table."""
    objects = len(set(requests.reads))
    print(f"| {name} | {len(requests.reads)} of {objects} | {len(requests.listings)} | {len(requests.checks)} |")


def run(folder: str, recipe: str = "demo") -> None:
    """Print a table in Markdown."""
    uri = f"counted://{Path(folder).absolute()}"
    cache = Cache(store=Store(uri=uri))
    print("| | reads of objects | listings | checks |\n|---|---|---|---|")
    for teacher in cache.teachers():
        extract = requests_of("extract", "--recipe", recipe, "--cache", uri, "--teacher", teacher)
        print_row(f"idle `extract`, {teacher}", extract)
    print_row("idle `stats`, all teachers", requests_of("stats", "--cache", uri, "--no-sizes"))
    print_row("the same with sizes of encodings", requests_of("stats", "--cache", uri))
    with counted() as requests:
        open_source(cache)
    print_row("start of `train`", requests)


if __name__ == "__main__":
    run(*sys.argv[1:])
