"""The page: everything that the template shows, computed, and the template filled in."""

from pathlib import Path
from typing import Any

import jinja2

from robust_saliency import statistics
from robust_saliency.report import (
    answer,
    claims,
    components,
    failures,
    figures,
    floors,
    image_views,
    numbers,
    pictures,
    provenance,
    randomisation,
    same_images,
    stated_plain,
    stated_table,
    tables,
    terms,
)
from robust_saliency.report.colours import run_colours
from robust_saliency.report.compare import class_comparisons, compare, family_size
from robust_saliency.report.load import Study


def render(shown: dict[str, Any]) -> str:
    """What :func:`contents` found as one HTML document that needs no other file."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("template.html").render(shown)


def contents(study: Study) -> dict[str, Any]:
    """All that the page shows of a study, by the names that the template knows."""
    comparison = compare(study)
    drawn = pictures.picture_rows(study)
    by_class = class_comparisons(study)
    several = study.reference is not None
    by_images = same_images.comparisons(study, comparison) if several else None
    stated_claims = stated_plain.described(study) if study.claims else None
    return {
        "study": study,
        "summary": study.first.summary,
        "colours": run_colours(study.labels),
        "facts": _facts(study),
        "claim": claims.is_claim(study),
        "no_claim": answer.NO_CLAIM,
        "family_size": family_size(study),
        "caliper": statistics.CALIPER,
        "stated": stated_claims,
        "stated_heads": stated_table.HEADS,
        "stated_terms": terms.of_claims(stated_claims["claims"]) if stated_claims else [],
        "stated_withdrawn": stated_table.withdrawn(stated_claims) if stated_claims else [],
        "stated_sections": stated_table.sections(stated_claims) if stated_claims else [],
        "leading": answer.leading_method(study),
        "not_learnt": answer.not_learnt(study, comparison),
        "answers": answer.answers(study, comparison, by_class),
        "accuracy": tables.accuracy_table(study, comparison),
        "class_accuracy": tables.class_accuracy_table(study, by_class),
        "overview": tables.overview_table(study, comparison) if several else None,
        "methods": [
            {
                "name": method,
                "about": study.methods[method],
                "table": tables.method_table(study, comparison, method),
                "floors": floors.table(study, comparison, method) if study.floors(method) else None,
                "classes": tables.class_table(study, by_class, method),
                "same_images": same_images.table(study, by_images, method) if several else None,
                "components": components.table(study, method) if len(study.seeds) > 1 else None,
            }
            for method in study.explaining_methods
        ],
        "pictures": drawn,
        "picture_methods": pictures.picture_methods(study),
        "pictured": {picture.name for picture in drawn},
        "views": image_views.image_views(study, drawn),
        "colour_bars": {kind: pictures.colour_bar_png(kind) for kind in ("signed", "magnitude")},
        "curves": figures.curve_figures(study),
        "randomisation": _randomisation(study),
        "training": figures.training_figure(study),
        "phased": any(len(run.phases) > 1 for run in study.runs),
        "config": provenance.config_table(study),
        "made_with": provenance.made_with(study),
        "undefined": provenance.undefined_table(study),
        "failures": failures.failures(study),
        "settings_of": tables.settings_of,
        "tests": provenance.tests_table(study, comparison) if several else None,
    }


def figures_of(shown: dict[str, Any]) -> dict[str, figures.Picture]:
    """By a name for a file the figures among :func:`contents`."""
    named = {f"curves_{figure.name}": figure for figure in shown["curves"]}
    if shown["randomisation"]:
        named |= {f"randomisation_{figure.name}": figure for figure in shown["randomisation"]["figures"]}
    return named | ({"training": shown["training"]} if shown["training"] else {})


def _randomisation(study: Study) -> dict | None:
    table = randomisation.table(study)
    if table is None:
        return None
    return {
        "table": table,
        "figures": randomisation.figures(study),
        "num_images": randomisation.num_images(study),
        "settings": randomisation.settings(study),
        "undefined": randomisation.undefined(study),
    }


def _facts(study: Study) -> list[str]:
    """The size of the study in a few short phrases."""
    summary = study.first.summary
    groups = len(set(study.first.scores.groups.tolist()))
    images = f"{summary['num_examples']} {summary['split']} images"
    facts = [
        _count(len(study.labels), "network"),
        _count(len(study.seeds), "seed"),
        images if groups == len(study.first.scores.ids) else f"{images} in {groups} groups",
        _count(len(summary["class_names"]), "class", "classes"),
    ]
    facts += [f"{_count(len(study.failed), 'run')} failed"] if study.failed else []
    return facts + ([numbers.duration(study.seconds)] if study.seconds is not None else [])


def _count(number: int, word: str, words: str = "") -> str:
    return f"{number} {word if number == 1 else words or word + 's'}"
