"""What the listing of an archive needs to know, and the keys of the images in it."""

from dataclasses import dataclass, field
from typing import final

from pipeline.config import OLD_RULES, ViewsConfig
from pipeline.images.passed_over import PassedOver
from storage_schemas.objects.retry_policy import RetryPolicy


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Archive:
    """A tar or a Parquet file that is to be listed."""

    uri: str
    name: str
    """Its path below DATA."""
    config: ViewsConfig = field(default_factory=ViewsConfig)
    """`rules`, `keys`, `image_column`, `key_column` and `members`."""
    retries: RetryPolicy = field(default_factory=RetryPolicy)
    """How long a store behind a network may fail."""
    passed_over: PassedOver = field(default_factory=PassedOver)
    """Counts what is not listed."""

    def key(self, name: str | None, number: int) -> str:
        """Return the key of an image.

        Args:
            name: the name that the archive gives it; None where it gives none.
            number: position of the image among those of the archive, from 0.
        """
        if name is not None and self.config.keys == "names":
            return name
        if name is not None and self.config.keys == "archive":
            return f"{self.name}/{name}"
        # version 0.1 had the base name alone, so part-0.parquet in two folders gave the same keys
        return f"{self.uri.rpartition('/')[2] if self.config.rules == OLD_RULES else self.name}/{number}"
