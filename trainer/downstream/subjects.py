"""What is evaluated: a teacher of the cache, or a student of a finished run."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from storage_schemas.cache import Cache
from storage_schemas.format.identity import digest
from trainer.downstream.chosen_views import choose_views
from trainer.downstream.features import EvaluationFeatures
from trainer.downstream.options import EvaluateOptions
from trainer.downstream.student_features import StudentFeatures, require_outputs
from trainer.downstream.tasks import Part
from trainer.downstream.teacher_features import require_teacher, teacher_digest, teacher_features
from trainer.export import ExportedStudent, load

FEATURES = "features"
"""Name of the folder of a student's features."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TeacherSubject:
    """A teacher of the cache."""

    cache: Cache
    options: EvaluateOptions

    @property
    def identity(self) -> Mapping[str, Any]:
        """Its spec and its weights."""
        origin = require_teacher(self.cache, self.options.teacher).origin
        return {"teacher": origin["teacher"], "weights_sha256": origin["weights_sha256"]}

    @property
    def outputs(self) -> Sequence[str]:
        """Its name."""
        return [self.options.teacher]

    def digests(self, view_set: str) -> tuple[str, Mapping[str, str]]:
        """Return the digest of the views, and that of its features by its name; nothing is computed."""
        views, name = choose_views(self.cache, view_set, self.options.views), self.options.teacher
        return digest(views.identity), {name: teacher_digest(views, require_teacher(self.cache, name))}

    def features(self, view_set: str, needed: Mapping[str, Iterable[Part]]) -> Iterator[EvaluationFeatures]:
        """Yield its features, read from the cache when a task asks for them.

        Args:
            view_set: name of the view set.
            needed: its name → parts that are read.
        """
        for name in needed:
            yield teacher_features(self.cache, name, view_set, self.options.views)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StudentSubject:
    """A student of a finished run."""

    cache: Cache
    options: EvaluateOptions
    student: ExportedStudent
    folder: Path
    """Where its features and scores are kept."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Its backbone and its weights."""
        return {"student": self.student.card["student"], "weights_sha256": self.student.card["weights_sha256"]}

    @property
    def outputs(self) -> Sequence[str]:
        """The outputs that are asked for."""
        return self.options.outputs

    def digests(self, view_set: str) -> tuple[str, Mapping[str, str]]:
        """Return the digest of the views, and those of its features by output; nothing is computed."""
        stored = self._stored(view_set)
        return digest(stored.views.identity), {output: stored.digest(output) for output in self.outputs}

    def features(self, view_set: str, needed: Mapping[str, Iterable[Part]]) -> Iterator[EvaluationFeatures]:
        """Run the student where something is missing, and yield its features, one output after the other.

        Args:
            view_set: name of the view set.
            needed: output → parts that are read.
        """
        stored = self._stored(view_set)
        with_tokens = [output for output, parts in needed.items() if "tokens" in parts]
        stored.compute(with_tokens, tokens=True)
        stored.compute([output for output in needed if output not in with_tokens], tokens=False)
        for output in needed:
            yield stored.read(output)

    def _stored(self, view_set: str) -> StudentFeatures:
        views = choose_views(self.cache, view_set, self.options.views)
        folder = self.folder / FEATURES / views.manifest.digest[:16] / f"{view_set}-{self.options.views}"
        name = self.options.student.name or self.options.student.resolve().name
        return StudentFeatures(student=self.student, name=name, views=views, folder=folder, options=self.options)


Subject = TeacherSubject | StudentSubject
"""What is evaluated."""


def open_subject(options: EvaluateOptions, cache: Cache, folder: Path) -> Subject:
    """Return the student or the teacher that is evaluated.

    Raises:
        MissingError: there is no finished student, or the cache lacks the teacher.
        SettingError: the student lacks an output.
    """
    if options.teacher:
        require_teacher(cache, options.teacher)
        return TeacherSubject(cache=cache, options=options)
    student = load(options.student).to(options.device)
    require_outputs(student, options.outputs)
    return StudentSubject(cache=cache, options=options, student=student, folder=folder)
