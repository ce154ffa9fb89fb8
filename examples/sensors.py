# %% [markdown]
# # Fifty million measurements
#
# A sensor that measures eight times a second for ten weeks: load it, ask for pieces of it, look
# at it at every scale. `CESIUM_EXAMPLE_ROWS` makes it shorter. What you need: `pip install
# 'cesiumdb[plot]'` and 3 GB of memory.

# %%
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from matplotlib import dates
from matplotlib import pyplot as plt

import cesium

plt.rcParams["date.converter"] = "concise"
ROWS = int(os.environ.get("CESIUM_EXAMPLE_ROWS", 50_000_000))

# %% [markdown]
# ## The series
#
# A daily and a weekly wave, a slow drift, noise, and now and then a spike that lasts one
# measurement. The clock is not quite regular, as clocks are not. The generator is seeded, so the
# series is the same on every machine.

# %%
STEP = np.timedelta64(125_000_000, "ns")  # eight times a second
START = np.datetime64("2026-01-05", "ns")


def series(rows: int, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Times (datetime64[ns], ascending) and temperatures (float64)."""
    chance = np.random.default_rng(seed)
    number = np.arange(rows, dtype="i8")
    jitter = chance.integers(-20_000_000, 20_000_000, rows)  # nanoseconds: less than half a step
    times = START + number * STEP + jitter.astype("m8[ns]")
    days = number * (STEP / np.timedelta64(1, "D"))
    values = 12 + 4 * np.sin(2 * np.pi * days) + 1.5 * np.sin(2 * np.pi * days / 7) + days / 20
    values += chance.normal(0, 0.15, rows)
    values[chance.integers(0, rows, max(rows // 5_000_000, 3))] += 9
    return times, values


times, values = series(ROWS)
times[:2], values[:2]

# %% [markdown]
# ## Loading
#
# One commit, straight to files; it is on stable storage when the call returns.

# %%
folder = tempfile.TemporaryDirectory()
store = cesium.open(Path(folder.name) / "sensor.cesium", key="datetime64[ns]", value="f8")
start = time.perf_counter()
store.bulk_load(times, values, progress=True)
seconds = time.perf_counter() - start
print(f"{ROWS / seconds / 1e6:.1f} million rows a second")
del times, values  # from here on, they are in the store
store

# %% [markdown]
# ## A piece of it
#
# An hour, as two arrays. A range that is a slice says about how many rows it has before anything
# is read.

# %%
noon = START + np.timedelta64(12, "h")
hour = store[noon : noon + np.timedelta64(1, "h")]
start = time.perf_counter()
when, temperature = hour.arrays()
print(f"{len(when):,} rows in {(time.perf_counter() - start) * 1e3:.2f} ms")
hour

# %%
figure, ax = plt.subplots(figsize=(7.5, 3.2), layout="constrained")
ax.plot(when, temperature, lw=0.4)
ax.set_title("One hour, every measurement")
ax.set_ylabel("°C")
ax.spines[["top", "right"]].set_visible(False)

# %% [markdown]
# ## Questions about all of it
#
# Totals are made in the pages where the rows are: no array is built, and no Python object.

# %%
start = time.perf_counter()
print(store.items().describe())
print(f"{len(store):,} rows in {time.perf_counter() - start:.2f} s")

# %% [markdown]
# ## A picture of all of it
#
# A picture is about a thousand pixels wide, so drawing all rows would take minutes and show no more
# than the least and the greatest value behind each pixel. `downsample` chooses those: no spike is
# lost, however short it was.

# %%
start = time.perf_counter()
at, drawn = store.items().downsample(4000)
print(f"{len(store):,} rows to {len(at):,} in {time.perf_counter() - start:.2f} s")

figure, ax = plt.subplots(figsize=(7.5, 3.2), layout="constrained")
ax.plot(at, drawn, lw=0.5)
ax.set_title("The whole series, with every spike")
ax.set_ylabel("°C")
ax.spines[["top", "right"]].set_visible(False)

# %% [markdown]
# ## Closer
#
# The same of ranges: the days, hours and minutes around the greatest value.

# %%
peak = at[np.argmax(drawn)]
figure, places = plt.subplots(1, 3, figsize=(9, 2.8), layout="constrained", sharey=True)
widths = {"a day": (1, "D"), "three hours": (3, "h"), "twenty minutes": (20, "m")}
for ax, (name, (number, unit)) in zip(places, widths.items()):
    width = np.timedelta64(number, unit)
    ax.plot(*store[peak - width : peak + width].downsample(1200), lw=0.5)
    ax.set_title(f"± {name}")
    ax.xaxis.set_major_locator(locator := dates.AutoDateLocator(minticks=2, maxticks=4))
    ax.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    ax.spines[["top", "right"]].set_visible(False)

# %% [markdown]
# ## Going on
#
# The sensor measures on. Each put is on stable storage when it returns; readers see it at once.

# %%
last, _ = store.last()
for number in range(1, 101):
    store.put(last + number * STEP, 15.0)
store.last(), len(store)

# %%
_ = store.plot.latency()
# %% [markdown]
# What was the temperature at a given moment? The last measurement before it:

# %%
store.floor(START + np.timedelta64(3, "h"))

# %%
store.close()
folder.cleanup()
