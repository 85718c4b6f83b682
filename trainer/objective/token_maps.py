"""The token maps of a run: one for every view set and teacher, and one for every view set's second window."""

from collections.abc import Mapping
from typing import final

from jaxtyping import Bool, Float
from torch import Tensor, nn

from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.format.views import ViewSet
from trainer.data.batch import SecondView, ViewBatch
from trainer.data.source import Source
from trainer.objective.stored_numbers import StoredNumbers
from trainer.objective.token_map import TokenMap


@final
class TokenMaps(nn.Module):
    """The token map of every view set and teacher of a run."""

    def __init__(self, source: Source, tokens: Mapping[int, int]) -> None:
        """Tabulate the maps.

        Args:
            source: the cache.
            tokens: tokens along one side of the student's window, for each resolution of the source (pixels).

        Raises:
            SettingError: `tokens` lacks a resolution of the source.
            ContractError: student and teacher tokens of some view set may have no common position.
        """
        super().__init__()
        _require_tokens(source, tokens)
        # checkpoints list the names of all modules: renaming `maps` or `own` would change their bytes
        self.maps = nn.ModuleDict(
            {
                _map_name(view_set, teacher): TokenMap(
                    set_source.geometry, tokens[view_set.resolution], features.tokens
                )
                for view_set, set_source in source.sets.items()
                for teacher, features in set_source.features.items()
            }
        )
        self.numbers = {
            _map_name(view_set, teacher): StoredNumbers(features.coding)
            for view_set, set_source in source.sets.items()
            for teacher, features in set_source.features.items()
        }
        self.own = nn.ModuleDict(
            {
                view_set.name: TokenMap(set_source.geometry, tokens[view_set.resolution], tokens[view_set.resolution])
                for view_set, set_source in source.sets.items()
            }
        )

    def forward(
        self, spatial: Float[Tensor, "batch rows cols channels"], batch: ViewBatch, teacher: str
    ) -> tuple[
        Float[Tensor, "batch common_rows common_cols channels"],
        Float[Tensor, "batch common_rows common_cols channels"],
        Bool[Tensor, "batch common_rows common_cols"],
    ]:
        """Bring the student's tokens and one teacher's tokens to their common positions.

        Args:
            spatial: x, output of the student's head for this teacher (PHI-S units).
            batch: the views, with the teacher's tokens as they are stored.
            teacher: name of the teacher.

        Returns:
            F_{S→T}[x], ŷ at the same positions, and Ω: the arguments of `spatial_mse`. Outside Ω the values mean
            nothing.
        """
        target, name = batch.targets[teacher], _map_name(batch.view_set, teacher)
        return self.maps[name](spatial, self.numbers[name](target.spatial), target.start - batch.start)

    def between_windows(
        self,
        student: Float[Tensor, "batch rows cols channels"],
        average: Float[Tensor, "batch rows cols channels"],
        batch: ViewBatch,
        second: SecondView,
    ) -> tuple[
        Float[Tensor, "batch common_rows common_cols channels"],
        Float[Tensor, "batch common_rows common_cols channels"],
        Bool[Tensor, "batch common_rows common_cols"],
    ]:
        """Bring the tokens of the student and of its moving average to their common positions.

        Args:
            student: x, tokens of the student's window.
            average: x̃, tokens of the average's window.
            batch: the views, with the student's windows.
            second: the average's windows.

        Returns:
            F_{S→S̃}[x], x̃ at the same positions, and Ω.
        """
        return self.own[batch.view_set.name](student, average, second.start - batch.start)


def _require_tokens(source: Source, tokens: Mapping[int, int]) -> None:
    if missing := sorted({view_set.resolution for view_set in source.sets} - tokens.keys()):
        fix = "give the student's tokens for every resolution of the source, or open fewer view sets"
        problems = [Problem(place=f"{size} px", found="has no number of tokens", fix=fix) for size in missing]
        raise SettingError("tokens", problems)


def _map_name(view_set: ViewSet, teacher: str) -> str:
    return f"{view_set.name}/{teacher}"
