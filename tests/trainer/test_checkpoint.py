"""Nothing in a checkpoint runs, and one that is not whole is refused in one message."""

import pickle
from pathlib import Path

import pytest
import torch

from storage_schemas.format.errors import CorruptionError
from trainer.run.checkpoint import read_checkpoint


class Opened:
    """Something that acts when it is unpickled."""

    def __reduce__(self) -> tuple:
        """Raise in whoever unpickles it."""
        return exec, ("raise SystemExit('the file ran')",)


def whole(path: Path) -> bytes:
    torch.save({"state_dict": {"a": torch.arange(1000.0)}, "global_step": 3}, path)
    return path.read_bytes()


def test_tensors_and_numbers_come_back(tmp_path: Path) -> None:
    whole(tmp_path / "last.ckpt")
    read = read_checkpoint(tmp_path / "last.ckpt")
    assert read["global_step"] == 3
    assert torch.equal(read["state_dict"]["a"], torch.arange(1000.0))


def refusal_of(path: Path) -> str:
    with pytest.raises(CorruptionError) as refusal:
        read_checkpoint(path)
    return str(refusal.value)


def test_nothing_in_a_checkpoint_runs(tmp_path: Path) -> None:
    torch.save({"global_step": 3, "state_dict": {}, "hyper": Opened()}, tmp_path / "new.ckpt")
    (tmp_path / "old.ckpt").write_bytes(pickle.dumps({"global_step": Opened()}, protocol=2))
    for name in ("new.ckpt", "old.ckpt"):
        assert refusal_of(tmp_path / name).startswith(
            f"checkpoint is damaged:\n  {tmp_path / name}: not weights and numbers alone, or not whole ("
        )


@pytest.mark.parametrize("left", [0, 10, 500, 0.5, 0.99])
def test_a_checkpoint_that_was_cut_is_refused(left: float, tmp_path: Path) -> None:
    body = whole(tmp_path / "last.ckpt")
    (tmp_path / "last.ckpt").write_bytes(body[: left if isinstance(left, int) else int(left * len(body))])
    assert "; nothing in it was run (put it back from a copy, or delete the run's folder" in refusal_of(
        tmp_path / "last.ckpt"
    )
