"""A made-up stock market for the examples: the same companies on every machine.

Revenue grows at a pace of its own for each company, with good and bad years. A company whose last
years went well tends to gain in price, but chance weighs more than growth, as on a real market.

Three tables, written as CSV: `companies` (ticker, name, industry), `revenues` (ticker, year,
revenue in millions) and `prices` (ticker, first and last price of the year after the newest
revenue). Only `random.Random(seed).random()` is used, which Python keeps the same across versions.
"""

import csv
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

SEED = 20260801
COMPANIES = 600
YEARS = range(2019, 2026)

# Industry: typical revenue in millions, typical growth a year.
INDUSTRIES = {
    "Airlines": (900, 0.03),
    "Banking": (1500, 0.04),
    "Biotechnology": (250, 0.12),
    "Insurance": (1100, 0.03),
    "Retail": (800, 0.05),
    "Semiconductors": (600, 0.14),
    "Software": (350, 0.16),
    "Utilities": (1000, 0.02),
}

GROWTH_WEIGHT = 0.9
CHANCE_WEIGHT = 0.2

Row = Sequence[str | int | float]


@dataclass(frozen=True)
class Market:
    """Rows of the three tables, without their headers."""

    companies: list[Row]
    revenues: list[Row]
    prices: list[Row]


def normal(random: Random) -> float:
    """A standard normal number, by Box and Muller from `random()` alone."""
    radius = math.sqrt(-2 * math.log(1 - random.random()))
    return radius * math.cos(2 * math.pi * random.random())


def make_market(seed: int = SEED, companies: int = COMPANIES) -> Market:
    random = Random(seed)  # noqa: S311
    names = list(INDUSTRIES)
    market = Market([], [], [])
    for number in range(companies):
        industry = names[int(random.random() * len(names))]
        typical, pace = INDUSTRIES[industry]
        ticker = "".join(chr(65 + number // 26**place % 26) for place in (2, 1, 0)) + industry[0]
        market.companies.append((ticker, f"{industry} {number + 1}", industry))

        revenue = typical * math.exp(0.6 * normal(random))
        own_pace = pace + 0.05 * normal(random)
        growths = []
        for year in YEARS:
            if year > YEARS.start:
                growth = own_pace + 0.10 * normal(random)
                growths.append(growth)
                revenue *= math.exp(growth)
            market.revenues.append((ticker, year, round(revenue, 2)))

        recent = (growths[-1] + growths[-2]) / 2
        change = GROWTH_WEIGHT * recent + CHANCE_WEIGHT * normal(random)
        first = 10 + 190 * random.random()
        market.prices.append((ticker, round(first, 2), round(first * math.exp(change), 2)))
    return market


HEADERS = {
    "companies": ("ticker", "name", "industry"),
    "revenues": ("ticker", "year", "revenue"),
    "prices": ("ticker", "first", "last"),
}


def write_market(folder: str | os.PathLike[str], seed: int = SEED) -> Path:
    """Write the three CSV files into a folder, and return it.

    A file that is there is left alone: it may be a person's own data.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    market = make_market(seed)
    for table, header in HEADERS.items():
        file = folder / f"{table}.csv"
        if file.exists():
            continue
        with tempfile.NamedTemporaryFile(
            "w", dir=folder, prefix=f".{table}.", newline="", encoding="utf-8", delete=False
        ) as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(getattr(market, table))
        os.chmod(stream.name, 0o644)
        os.replace(stream.name, file)
    return folder
