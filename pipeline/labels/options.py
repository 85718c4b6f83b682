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


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TextVectorsOptions:
    """Write what a text tower of SigLIP or SigLIP2 gives for class names, or for captions, to a `.safetensors` file."""

    tower: Path = Path()
    """Folder of the model as transformers stores it, with its text tower and its tokenizer. Nothing is downloaded."""
    teacher: str = ""
    """The teacher whose image summaries the vectors are compared with: a name of the catalogue such as `siglip2-g-384`,
    `timm:<model.tag>` or `hf:<folder>`. It must be of the same model as the text tower."""
    to: Path = Path()
    """The file to write (TO). An existing file is replaced."""
    classes: Path = Path()
    """A text file with a class name on each line, in the words of the labels. A line may also be a label, a tab and its
    name, as for the command `labels`."""
    templates: Path = Path()
    """A text file with a sentence on each line, with `{}` where the name goes; the mean over all is taken. The sentence
    is `This is a photo of {}.` where no file is given."""
    captions: Path = Path()
    """In place of `classes`: a CSV file with the columns key and caption, for retrieval. An image may have several."""
    device: str = "cpu"
    """Where the text tower runs: cpu, or cuda."""


def text_vectors_options(arguments: Sequence[str]) -> TextVectorsOptions:
    """Read the command line of `text-vectors`."""
    options = parse("text-vectors", TextVectorsOptions(), arguments)
    for name in ("tower", "teacher", "to"):
        require(name.upper(), "" if getattr(options, name) in ("", Path()) else "given")
    return options


def labels_options(arguments: Sequence[str]) -> LabelsOptions:
    """Read the command line of `labels`."""
    recipe = recipe_of(option_value(arguments, "recipe", "evaluation"))
    options = parse("labels", LabelsOptions(recipe=recipe.name, views=recipe.views), arguments)
    require("DATA", options.data)
    require("TO", "" if options.to == Path() else str(options.to))
    return options
