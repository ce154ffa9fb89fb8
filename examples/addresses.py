# %% [markdown]
# # Which country is this address in?
#
# A table of address ranges, asked for single addresses: the classic use of `floor`, the last key
# at or before the one that was asked for. On Debian, `apt install tor-geoipdb` provides a real
# table; without it, one is made here. What you need: `pip install 'cesiumdb[plot]'`.

# %%
import ipaddress
import os
import time
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

import cesium

table = Path(os.environ.get("CESIUM_EXAMPLE_GEOIP", "/usr/share/tor/geoip"))
if table.exists():
    lines = [line.split(",") for line in table.read_text().splitlines() if line[:1].isdigit()]
    starts = np.array([line[0] for line in lines], "u4")
    ends = np.array([line[1] for line in lines], "u4")
    countries = np.array([line[2] for line in lines], "S2")
else:  # 200,000 ranges of made-up countries, with gaps between some of them
    chance = np.random.default_rng(7)
    edges = np.unique(chance.integers(1 << 24, 223 << 24, 400_000)).astype("u4")
    edges = edges[: len(edges) // 2 * 2]
    starts, ends = edges[0::2], edges[1::2] - 1
    names = np.array([b"AT", b"BR", b"CL", b"DE", b"FR", b"JP", b"NZ", b"US", b"ZA"])
    countries = chance.choice(names, len(starts))
f"{len(starts):,} ranges from {table if table.exists() else 'this notebook'}"

# %% [markdown]
# ## The table
#
# The key is where a range begins; the value has its end and the country. In memory here; with a
# path instead of `":memory:"` it would be on the drive, and open in a millisecond the next time.

# %%
store = cesium.open(":memory:", key="u4", value=[("end", "u4"), ("country", "S2")])
values = np.empty(len(starts), [("end", "u4"), ("country", "S2")])
values["end"], values["country"] = ends, countries
store.bulk_load(starts, values)
store

# %% [markdown]
# ## One address
#
# `floor` finds the range that begins at or before the address. Whether it reaches so far is for
# the caller to check: between ranges there are gaps.


# %%
def country_of(address: str) -> str | None:
    number = int(ipaddress.IPv4Address(address))
    found = store.floor(number)
    if found is None or number > found[1].end:
        return None
    return found[1].country.decode()


some = ["8.8.8.8", "193.99.144.80", "133.11.0.1", "0.0.0.0", "127.0.0.1"]
{address: country_of(address) for address in some}

# %% [markdown]
# How long does a look-up take, one at a time from a loop?

# %%
chance = np.random.default_rng(1)
numbers = chance.integers(1 << 24, 223 << 24, 20_000).tolist()
start = time.perf_counter()
for number in numbers:
    store.floor(number)
each = (time.perf_counter() - start) / len(numbers)
f"{each * 1e6:.1f} microseconds a look-up"

# %% [markdown]
# ## Many addresses
#
# For a log file with millions of lines, take the keys as an array once (it is sorted), let numpy
# find the places, and fetch the values of the distinct ranges in one batch.

# %%
log = chance.integers(1 << 24, 223 << 24, 500_000).astype("u4")
begins = store.keys().arrays()
place = np.searchsorted(begins, log, side="right") - 1
rows, found = store.get_many(begins[np.maximum(place, 0)])
inside = found & (place >= 0) & (log <= rows["end"])
names, counts = np.unique(rows["country"][inside], return_counts=True)
top = np.argsort(counts)[::-1][:12]

figure, ax = plt.subplots(figsize=(7.5, 3.2), layout="constrained")
ax.bar([name.decode() for name in names[top]], counts[top] / len(log))
ax.set_title(f"Random addresses by country; {1 - inside.mean():.0%} are in no range")
ax.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
ax.spines[["top", "right"]].set_visible(False)

# %% [markdown]
# ## Where the ranges are
#
# Each step of the picture is as many addresses wide as the others: where it is high, the address
# space is cut finely.

# %%
_ = store.plot.keys()
# %%
store.close()
