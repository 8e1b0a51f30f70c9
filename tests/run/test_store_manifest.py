"""The manifest in a store keeps the lines of all runs, also of runs that merge at one moment."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from lumen_cli.files.places import ObjectPath, parse_address
from lumen_cli.run.manifest import MANIFEST_NAME, Record
from lumen_cli.run.stores import StoreManifest
from tests.store import MANIFEST, Bucket, Request


def outputs_in(bucket: Bucket) -> set[str]:
    """The outputs that the merged manifest names."""
    return {json.loads(line)["output"] for line in bucket.get(f"out/{MANIFEST_NAME}").splitlines()}


def record(bucket: Bucket, name: str) -> Record:
    """A line about an output that exists."""
    bucket.put(f"out/{name}", b"made")
    return Record(name, name, output_size=4)


def other_run(bucket: Bucket, names: list[str]) -> Callable[[Request], None]:
    """When a run is about to write the manifest, other runs start, record an output each and merge."""

    def interfere(request: Request) -> None:
        if request.method == "PUT" and request.key.endswith(MANIFEST) and names and not under_way:
            name = names.pop()
            under_way.append(name)
            root = parse_address(bucket.url("out"))
            other = StoreManifest(root)
            other.add(record(bucket, name))
            other.finish()
            under_way.clear()

    under_way: list[str] = []
    return interfere


@pytest.mark.parametrize("before", [False, True])
def test_two_merges_at_one_moment_lose_no_line(bucket: Bucket, before: bool) -> None:
    root: ObjectPath = parse_address(bucket.url("out"))
    if before:
        earlier = StoreManifest(root)
        earlier.add(record(bucket, "earlier.png"))
        earlier.finish()
    one = StoreManifest(root)
    one.add(record(bucket, "one.png"))
    bucket.proxy.fault = other_run(bucket, ["other.png"])
    one.finish()
    assert outputs_in(bucket) == {"one.png", "other.png", *(["earlier.png"] if before else [])}
    assert not [key for key in bucket.contents("out") if "parts" in key]


def test_a_lost_answer_to_the_merge_is_no_conflict(bucket: Bucket) -> None:
    one = StoreManifest(parse_address(bucket.url("out")))
    one.add(record(bucket, "one.png"))
    losing = ["lose"]

    def fault(request: Request) -> str | None:
        return losing.pop() if request.method == "PUT" and request.key.endswith(MANIFEST) and losing else None

    bucket.proxy.fault = fault
    one.finish()
    assert outputs_in(bucket) == {"one.png"}


def test_a_server_that_knows_no_conditions_is_written_without(bucket: Bucket) -> None:
    bucket.proxy.fault = lambda request: None
    root = parse_address(bucket.url("out"))
    root.store.checks = False
    one = StoreManifest(root)
    one.add(record(bucket, "one.png"))
    bucket.proxy.fault = other_run(bucket, ["other.png"])
    one.finish()
    assert "one.png" in outputs_in(bucket)
