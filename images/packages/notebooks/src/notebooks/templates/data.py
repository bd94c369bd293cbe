"""Made-up data for the templates, so that each runs before it has yours.

The same seed gives the same data. What the data are like is known, which is what lets a test say
whether a template is right: who leaves, what is missing and why, which column is noise.
"""

import numpy as np
import pandas as pd

REGIONS = {"north": 0.3, "south": 0.25, "east": 0.2, "west": 0.15, "islands": 0.1}
PLANS = {"basic": 15.0, "standard": 30.0, "premium": 55.0}
"""Monthly fee."""

SHAPES = ("disc", "square", "cross", "ring")
TODAY = pd.Timestamp("2026-01-01")


def make_customers(rows: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Customers of a made-up telephone company; `churned` is 1 for those who left.

    They leave with a basic plan, many calls for help, a complaint and little use, less so the
    longer they have been there. `region` and `shoe_size` say nothing. `usage_gb` is missing for
    about a third of the islands and 3 % elsewhere; `complaint_days` wherever nobody complained.
    """
    random = np.random.default_rng(seed)
    plan = random.choice(list(PLANS), rows, p=(0.45, 0.35, 0.2))
    region = random.choice(list(REGIONS), rows, p=list(REGIONS.values()))
    months = np.ceil(random.gamma(2.0, 14.0, rows)).astype(int)
    calls = random.poisson(1.5, rows)
    usage = random.lognormal(2.0, 0.7, rows)
    complained = random.random(rows) < 0.18
    leaning = (
        -1.6
        + 1.4 * (plan == "basic")
        - 0.9 * (plan == "premium")
        + 0.55 * (calls - 1.5)
        + 1.7 * complained
        - 1.1 * (np.log(usage) - 2.0)
        - 0.035 * (months - 28)
    )
    churned = random.random(rows) < 1 / (1 + np.exp(-leaning))
    missing = random.random(rows) < np.where(region == "islands", 0.35, 0.03)
    fee = np.array([PLANS[each] for each in plan]) + random.normal(0, 2.0, rows)
    return pd.DataFrame(
        {
            "customer": [f"C{number:05d}" for number in range(rows)],
            "joined": TODAY - pd.to_timedelta(months * 30 + random.integers(0, 30, rows), unit="D"),
            "region": region,
            "plan": plan,
            "monthly_fee": fee.round(2),
            "calls": calls,
            "usage_gb": np.where(missing, np.nan, usage.round(2)),
            "complaint_days": np.where(complained, random.integers(1, 365, rows), np.nan),
            "shoe_size": random.integers(36, 47, rows),
            "churned": churned.astype(int),
        }
    )


def make_shapes(count: int = 1200, seed: int = 0, size: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Grey pictures of one shape each and the number of the shape (in `SHAPES`).

    Pictures are float32 of shape (count, size, size) between 0 and 1, noise included.
    """
    random = np.random.default_rng(seed)
    label = random.integers(0, len(SHAPES), count)
    radius = random.uniform(3.0, 5.5, count)[:, None, None]
    middle = random.uniform(6.0, size - 7.0, (2, count))
    place = np.arange(size)
    down = np.abs(place[None, :, None] - middle[0][:, None, None])
    right = np.abs(place[None, None, :] - middle[1][:, None, None])
    distance = np.hypot(down, right)
    square = np.maximum(down, right) <= 0.85 * radius
    drawn = np.stack(
        [
            distance <= radius,
            square,
            ((down <= 1.2) | (right <= 1.2)) & (np.maximum(down, right) <= radius),
            (distance <= radius) & (distance >= 0.6 * radius),
        ]
    )[label, np.arange(count)]
    pictures = drawn * random.uniform(0.5, 1.0, (count, 1, 1))
    noisy = pictures + random.normal(0, 0.25, pictures.shape)
    return noisy.clip(0, 1).astype(np.float32), label
