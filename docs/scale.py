"""A model of large runs: time, cost and what binds, for many pictures on many workers. docs/scale.md explains it.

python docs/scale.py            the tables
python docs/scale.py --json     the same as JSON lines
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass

import numpy as np

PICTURES = (10**6, 10**9)
WORKERS = (10, 100, 1_000, 10_000)
PIECE = 20_000


@dataclass(frozen=True)
class Site:
    """What one worker, the store and the machines are like. Times in seconds, measured as docs/scale.md says."""

    compute: float = 0.37
    """Of a picture on one worker (600×400 pixels, two cores)."""
    spread: float = 0.5
    """Standard deviation of a picture's time, in parts of the mean."""
    start: float = 3.0
    """From the start of the program to the first picture: imports, model."""
    planning: float = 60e-6
    """Of a listed picture: name, state, decision."""
    memory: float = 0.45e3
    """Bytes of a listed picture, held while a run lasts."""
    latency: float = 0.05
    """Of a request to the store."""
    listed: int = 1000
    """Names that one listing request returns."""
    requests: float = 5.0
    """Of a picture besides listing: read it, ask twice whether it is the same, write its line and its output."""
    transfers: int = 16
    """Requests under way at a time on one worker."""
    most_requests: float = 3500.0
    """Requests that the store answers in a second for one prefix: S3's documented limit for writes."""
    prefixes: int = 16
    """Prefixes that the pictures lie under."""
    failures: float = 0.01
    """Share of requests that fail and are sent again."""
    wait: float = 1.0
    """Before a request that failed is sent again; other transfers go on meanwhile."""
    deaths: float = 1e-3
    """Workers lost in an hour, in parts of all, for example spot machines."""
    machine: float = 0.08
    """Price of a worker's hour."""
    per_million: float = 11.2
    """Price of the requests of a million pictures: three reads at 0.4, two writes at 5."""
    list_price: float = 5.0
    """Price of a million listing requests."""


@dataclass(frozen=True)
class Outcome:
    """piece: pictures of one command, None for one command over all; hours: until the last worker ends; price: of a
    million pictures; gigabytes: what a worker holds of the listing; binds: what takes most of the time.
    """

    pictures: int
    workers: int
    piece: int | None
    hours: float
    price: float
    gigabytes: float
    binds: str


def simulate(pictures: int, workers: int, site: Site, piece: int | None = None, seed: int = 0) -> Outcome:
    """One run over all pictures.

    Args:
        pictures: how many.
        workers: how many.
        site: what they are like.
        piece: pictures of one command, each over a folder or list of its own, which workers take from a queue. None:
            one command divided by `--shard`, where every worker lists everything, and the slowest part ends the run.
        seed: of parts, times and deaths.

    Parts differ because a hash divides them, and because pictures take different times. A worker that dies is replaced;
    it lists again and continues, since finished outputs stay.
    """
    random = np.random.default_rng(seed)
    listed = pictures if piece is None else min(piece, pictures)
    ready = site.start + listed * (site.latency / site.listed + site.planning)
    if piece is None:
        part = random.binomial(pictures, 1.0 / workers, workers).astype(float)
        commands = np.ones(workers)
    else:
        pieces = -(-pictures // piece)
        commands = np.full(workers, pieces // workers) + (np.arange(workers) < pieces % workers)
        part = commands * piece
    compute = np.maximum(site.compute * (part + random.normal(size=workers) * site.spread * np.sqrt(part)), 0.0)
    request = site.latency + site.failures * (site.latency + site.wait)
    transfer = part * site.requests * request / site.transfers
    busy = np.maximum(compute, transfer)  # they overlap
    deaths = random.poisson(site.deaths * (commands * ready + busy) / 3600.0)
    times = commands * ready + busy + deaths * ready
    allowed = pictures * site.requests * (1.0 + site.failures) / (site.most_requests * site.prefixes)
    end = max(float(times.max()), ready + allowed)
    parts = {
        "computing": float(compute.mean()) if compute.mean() >= transfer.mean() else 0.0,
        "transfers": float(transfer.mean()) if transfer.mean() > compute.mean() else 0.0,
        "listing": float(commands.mean() * (ready - site.start)),
        "start": float(commands.mean() * site.start),
        "the slowest worker": float(times.max() - times.mean()),
        "requests a second": allowed if end > times.max() else 0.0,
    }
    lists = float((commands + deaths).sum()) * listed / site.listed
    price = workers * end / 3600.0 * site.machine + pictures / 1e6 * site.per_million + lists / 1e6 * site.list_price
    binds = max(parts, key=lambda name: parts[name])
    return Outcome(pictures, workers, piece, end / 3600.0, price / (pictures / 1e6), listed * site.memory / 1e9, binds)


def outcomes(site: Site) -> list[Outcome]:
    """All numbers of pictures and workers, as one command and in pieces."""
    pieces = (None, PIECE)
    return [
        simulate(pictures, workers, site, piece) for pictures in PICTURES for piece in pieces for workers in WORKERS
    ]


def table(found: list[Outcome]) -> str:
    """A table in Markdown."""
    lines = ["| pictures | as | workers | time | price of a million | memory of a worker | what binds |"]
    lines.append("| ---: | --- | ---: | ---: | ---: | ---: | --- |")
    for each in found:
        way = "one command, `--shard`" if each.piece is None else f"pieces of {each.piece:,}"
        cells = (f"{each.pictures:,}", way, f"{each.workers:,}", in_words(each.hours), f"{each.price:,.0f} $")
        lines.append("| " + " | ".join((*cells, f"{each.gigabytes:,.1f} GB", each.binds)) + " |")
    return "\n".join(lines)


def in_words(hours: float) -> str:
    """1.5 → "1 h 30 min", 100 → "4.2 days"."""
    if hours >= 48.0:
        return f"{hours / 24.0:,.1f} days"
    return f"{hours * 60.0:.0f} min" if hours < 1.0 else f"{int(hours)} h {int(hours % 1.0 * 60.0):02d} min"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    found = outcomes(Site())
    if parser.parse_args().json:
        print("\n".join(json.dumps(asdict(each)) for each in found))
    else:
        print(table(found))
