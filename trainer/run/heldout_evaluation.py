"""Evaluating the student on held-out views between steps."""

from itertools import takewhile
from typing import Any, final

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from tqdm import tqdm

from trainer.data.datamodule import CachedViews
from trainer.data.loader import Batches, Share
from trainer.evaluation.evaluate import Scores, observe, score
from trainer.learning.module import Distillation
from trainer.learning.sharding import whole
from trainer.run.metrics import add_scores, has_stalled, is_scored, score_values
from trainer.run.processes import gather
from trainer.run.stop_at_step_end import StopAtStepEnd
from trainer.run_folder import RunFolder


@final
class HeldoutEvaluation(Callback):
    """Scores the student before the first step, every `evaluate_every` steps, and after the last step."""

    def __init__(self, run: RunFolder, datamodule: CachedViews, stop: StopAtStepEnd, *, scored: bool) -> None:
        """Describe the evaluations.

        Args:
            run: folder of the run.
            datamodule: its views.
            stop: what stops the run on a signal.
            scored: whether the student is scored at all.
        """
        super().__init__()
        self.scored = scored
        self.run, self.datamodule, self.stop = run, datamodule, stop
        self.fidelities: dict[str, float] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score the untrained student. A run that was stopped before the scores of its last step makes them now."""
        if self._is_due(trainer) and not trainer.strategy.broadcast(is_scored(self.run, trainer.global_step)):
            self._evaluate(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, _outputs: Any, _batch: Batches, _batch_idx: int
    ) -> None:
        """Score the student if an evaluation is due."""
        if self._is_due(trainer):
            self._evaluate(trainer, pl_module)

    def _is_due(self, trainer: Trainer) -> bool:
        every, step = self.datamodule.recipe.running.evaluate_every, trainer.global_step
        return self.scored and (step in (0, self.datamodule.recipe.steps) or bool(every and step % every == 0))

    def _evaluate(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, Distillation)
        scores = self._scores(trainer, module)
        if scores is None:
            return
        self.fidelities = {name: teacher.fidelity for name, teacher in scores.teachers.items()}
        if trainer.is_global_zero:
            add_scores(self.run, trainer.global_step, scores)
            for logger in trainer.loggers:
                logger.log_metrics(score_values(scores), trainer.global_step)
            fidelities = ", ".join(f"{name} {fidelity:.3f}" for name, fidelity in self.fidelities.items())
            tqdm.write(f"step {trainer.global_step}: held-out fidelity: {fidelities}")
        trainer.strategy.barrier()  # the next line reads in every process what the first process has written
        if has_stalled(self.run, self.datamodule.recipe.patience):
            trainer.should_stop = True

    def _scores(self, trainer: Trainer, module: Distillation) -> Scores | None:
        """Return the scores, or None if a signal stops the run first: it makes them when it resumes.

        The evaluation after the last step is not put off, since a run at its last step does not resume.
        """
        source, last = self.datamodule.source, trainer.global_step == self.datamodule.recipe.steps
        views = self.datamodule.heldout_loader(Share(rank=trainer.global_rank, world=trainer.world_size))
        until_stopped = takewhile(lambda _: last or not self.stop.received, views)
        moved = ([part.to(module.device) for part in parts] for parts in until_stopped)
        sizes = sorted({view_set.resolution for view_set in source.sets})
        with trainer.precision_plugin.forward_context(), whole(module.finished):
            observations = observe(module.finished, module.maps, moved, sizes)
        by_process = gather((observations, self.stop.received))
        if not last and (number := max(received for _, received in by_process)):
            self.stop.agree(trainer, number)
            return None
        return score([observed for observed, _ in by_process], source.teachers, module.dispersions)
