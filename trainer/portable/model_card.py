"""The model card of an exported student: where it comes from, how good it is, and how it is used."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

RANDOM = "**random weights: a demonstration, not a teacher**"
"""Said of teachers that were never trained."""
TAGS = ("image-feature-extraction", "stillhouse", "distillation")


def model_card(card: Mapping[str, Any], library: str, usage: str) -> str:
    """Return a model card in Markdown, with the metadata that the Hugging Face Hub reads at its top.

    Args:
        card: the card of an exported student.
        library: the library that loads the folder, as the Hub names it.
        usage: Markdown that says how to load and run it.
    """
    parts = [
        _metadata(library),
        f"# {card['student']}, distilled from {_listed(card['teachers'])}",
        "A vision backbone that learnt the features of other networks from stored features, with Stillhouse.",
        "## How to use it",
        usage,
        "## Teachers and licences",
        "Whoever publishes or uses this student has to respect the licences of its teachers.",
        _table(("teacher", "model", "licence", "channels of a token", "of a summary"), _teacher_rows(card)),
        "## Scores",
        _scores(card),
        "## How it was trained",
        *_recipe(card),
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(library: str) -> str:
    values: dict[str, Any] = {
        "library_name": library,
        "pipeline_tag": TAGS[0],
        "tags": list(TAGS),
        # a student has no licence of its own before somebody gives it one
        "license": "other",
        "license_name": "see-the-licences-of-the-teachers",
    }
    return "\n".join(
        ["---", *(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()), "---"]
    )


def _teacher_rows(card: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    for name, facts in card["teachers"].items():
        model = f"{facts['model']}: {RANDOM}" if facts["random_weights"] else facts["model"]
        yield name, model, facts["licence"], str(facts["channels"]), str(facts["summary_channels"] or "none")


def _scores(card: Mapping[str, Any]) -> str:
    scores = card["scores"]
    if scores is None:
        return "It was not evaluated: the cache has no held-out views."
    sets = sorted({name for of_teacher in scores["teachers"].values() for name in of_teacher["sets"]})
    rows = [
        (name, *map(_number, (found["fidelity"], *(found["sets"].get(view_set) for view_set in sets), found["angle"])))
        for name, found in scores["teachers"].items()
    ]
    about = (
        f"On held-out views, after step {scores['step']}. Fidelity is the variance of the teacher's tokens over the "
        "squared error of the student's (larger is better; 1 is no better than the mean), over all view sets and in "
        "each. Angle is the mean squared angle between the summaries of student and teacher over the dispersion of the "
        "teacher's (smaller is better; 1 is no better than the mean)."
    )
    return f"{about}\n\n{_table(('teacher', 'fidelity', *sets, 'angle'), rows)}"


def _recipe(card: Mapping[str, Any]) -> Iterator[str]:
    recipe, rows = card["recipe"], card["cache"]["rows"]
    views = _table(
        ("view set", "training views", "held-out views"),
        [(name, str(counts["train"]), str(counts["heldout"])) for name, counts in rows.items()],
    )
    run = f"{recipe['steps']} steps, seed {recipe['seed']}, {recipe['precision']}"
    yield f"Recipe `{recipe['name']}`, {run}, on these views:"
    yield views
    yield "All settings, and the digests of the cache that it was trained on:"
    yield _code("json", json.dumps({"recipe": recipe, "cache": card["cache"]}, indent=1, ensure_ascii=False))


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _code(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
