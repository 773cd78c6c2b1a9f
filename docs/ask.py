"""Of a study's runs a difference that no claim of it states, as its claims are measured: on the images that both have.

    python docs/ask.py --study=runs/scaat2023_ham10000 --metric=deletion --run=scaat --than-run=linf \\
        --map=gradient,centre_gaussian
    python docs/ask.py --study=runs/scaat2023_ham10000 --metric=deletion --run=scaat,standard --map=gradient \\
        --than-map=centre_gaussian
    python docs/ask.py --study=runs/scaat2023_ham10000 --metric=accuracy --run=scaat --than-run=standard

A line each run and map: both means, the difference with its 95 % interval, and that of each seed. It has no p-value,
and what is asked after one has seen the results is no claim: a page says so of each such number.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from robust_saliency import checks, stated
from robust_saliency.report import load, numbers
from robust_saliency.report.stated import Difference, judged
from robust_saliency.study_claims import ROAR


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", required=True, help="folder of a study")
    parser.add_argument("--metric", required=True, help="of config.evaluation.metrics, accuracy, roar, ...")
    parser.add_argument("--run", required=True, help="one or more, with commas")
    parser.add_argument("--than-run", default="", help="the other run, if another")
    parser.add_argument("--map", default="", help="one or more, with commas; blind ones too; none of what has no map")
    parser.add_argument("--than-map", default="", help="the other map, if another")
    words = parser.parse_args()
    try:
        found = asked(words.study, words.metric, words.run, words.map, words.than_run, words.than_map)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    for each in found:
        print(line(each))


def asked(
    study: str, metric: str, runs: str, maps: str = "", than_run: str = "", than_map: str = ""
) -> list[Difference]:
    """A difference each of ``runs`` and ``maps``, which are separated by commas. ValueError for what is not there."""
    read = load.read_study(study)
    for run in (*runs.split(","), *filter(None, [than_run])):
        checks.one_of("run", run, read.labels)
    of_maps = (*read.first.summary["metrics"], *ROAR)
    if not metric.startswith("neurons:"):
        attacks = (f"robust:{label}" for label in read.first.summary["attacks"])
        checks.one_of("metric", metric, (*of_maps, "accuracy", "confidence", *attacks))
    if metric in of_maps and not maps:
        raise ValueError(f"{metric} is of a map: give --map, such as {', '.join(read.methods)}.")
    expected = tuple(
        stated.Expected(metric, run, map=each, than_run=than_run, than_map=than_map)
        for run in runs.split(",")
        for each in maps.split(",")
    )
    claim = stated.Claim("asked", "Asked when the results had been seen.", expected, source="ours")
    return list(judged(dataclasses.replace(read, claims=(claim,)))[0].differences)


def line(found: Difference) -> str:
    """``gini: scaat/gradient 0.493, linf/gradient 0.437; +0.056 [+0.054, +0.058]; seeds +0.046, +0.064, +0.058``."""
    expected = found.expected
    of, other = ("/".join(filter(None, place)) for place in ((expected.run, expected.map), expected.other[1:]))
    difference = " ".join(numbers.difference(found.difference))
    seeds = ", ".join(numbers.signed(value) for value in found.by_seed.values())
    means = f"{of} {numbers.plain(found.mean)}, {other} {numbers.plain(found.other_mean)}"
    return numbers.ascii_minus(f"{expected.metric}: {means}; {difference}; seeds {seeds}")


if __name__ == "__main__":
    main()
