"""Draw the picture that `thinkimg example` writes, thinkimg/viewer/static/example.png, which is committed.

Four panels on purpose: too many small numbers for one look, so that zooming, reading and pointing have something to do.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

PATH = Path(__file__).parent.parent / "thinkimg" / "viewer" / "static" / "example.png"
REGIONS = ["North", "East", "South", "West"]
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun"]


def main(path: Path = PATH) -> None:
    figure, ((revenue, visits), (costs, rating)) = pyplot.subplots(2, 2, figsize=(10, 7), dpi=100)
    bars = revenue.bar(REGIONS, [412, 268, 351, 197], color=["#4878a8", "#e08a3c", "#5a9e6f", "#b5545c"])
    revenue.bar_label(bars, padding=3)
    revenue.set(title="Revenue (thousand $)", ylim=(0, 480))
    visits.plot(MONTHS, [120, 135, 128, 162, 181, 175], marker="o", label="Shop")
    visits.plot(MONTHS, [98, 92, 110, 119, 131, 158], marker="s", label="Web")
    visits.set(title="Visits per day")
    visits.legend()
    costs.pie([38, 27, 21, 14], labels=["Staff", "Rent", "Goods", "Other"], autopct="%d %%")
    costs.set(title="Costs")
    stars = rating.barh(REGIONS, [4.6, 3.9, 4.2, 4.8], color="#7a6fb0")
    rating.bar_label(stars, padding=5)
    rating.set(title="Rating (of 5)", xlim=(0, 5.6))
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
