"""Where a run's numbers go: a JSONL file and TensorBoard, both beside the run."""

import json
import math
from pathlib import Path


class MetricWriter:
    """Appends rows `{"step": ..., name: value}` to metrics.jsonl and the same scalars to a TensorBoard event file.

    A resumed run passes `resume_after`: rows of later steps, written before the interruption, are dropped, so that the file ends
    with the rows of an uninterrupted run.
    """

    def __init__(self, directory, *, resume_after: int = -1, tensorboard: bool = True):
        self.path = Path(directory) / "metrics.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = [row for row in read_metrics(self.path) if row["step"] <= resume_after]
        self._file = self.path.open("w")
        self._board = None
        if tensorboard:
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(str(self.path.parent / "tensorboard"), purge_step=resume_after + 1)
        for row in kept:
            self._file.write(json.dumps(row) + "\n")

    def write(self, step: int, values: dict[str, float]) -> None:
        row = {"step": step} | {k: round(float(v), 7) if math.isfinite(v) else None for k, v in values.items()}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()


def read_metrics(path) -> list[dict]:
    """Rows of a metrics file; a last line cut short by a kill is left out."""
    path, rows = Path(path), []
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return rows
