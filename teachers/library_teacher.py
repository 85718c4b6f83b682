"""What teachers of a library's models share: the description of the model beside its network."""

from torch import nn

from storage_schemas.format.teacher import Precision, TeacherSpec
from teachers.base import AbstractTeacher
from teachers.library_model import LibraryModel


class AbstractLibraryTeacher(AbstractTeacher):
    """A model that a library knows by name."""

    def __init__(
        self,
        *,
        spec: TeacherSpec,
        network: nn.Module,
        model: LibraryModel,
        device: str,
        precision: Precision,
        layers: tuple[int, ...],
        compiled: bool,
    ) -> None:
        """Take a loaded network and its description; see `AbstractTeacher`."""
        super().__init__(
            spec=spec, network=network, device=device, precision=precision, layers=layers, compiled=compiled
        )
        self.model = model
