"""The command line of `labels`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from pipeline.command_line import parse, require
from pipeline.config import ViewsConfig
from pipeline.recipes import recipe_of
from storage_schemas.command_line import option_value


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LabelsOptions:
    """Write the labels of the images in DATA to a CSV file, by the keys that these images have in a cache."""

    recipe: str = "evaluation"
    """The recipe of the cache, which decides how images are found and named."""
    data: str = ""
    """The images (DATA): a folder with a folder for each class, tars with `.cls` or `.json` members, or Parquet files
    with a column of labels; see docs/evaluation.md."""
    to: Path = Path()
    """The CSV file to write (TO), with the columns key, label and, where all images name a part, split. An existing
    file is replaced."""
    label_field: str = ""
    """The field of the `.json` members, such as `label` or `annotation.class`, or the column of the Parquet files, that
    holds the labels. When empty: the `.cls` member; the only column that is called like one of labels."""
    names: Path = Path()
    """A text file with the names of the classes: line n, counted from 0, is the name of label n. A line may also be a
    label, a tab and its name. Parquet files of Hugging Face bring their names."""
    views: ViewsConfig = field(default_factory=ViewsConfig)


def labels_options(arguments: Sequence[str]) -> LabelsOptions:
    """Read the command line of `labels`."""
    recipe = recipe_of(option_value(arguments, "recipe", "evaluation"))
    options = parse("labels", LabelsOptions(recipe=recipe.name, views=recipe.views), arguments)
    require("DATA", options.data)
    require("TO", "" if options.to == Path() else str(options.to))
    return options
