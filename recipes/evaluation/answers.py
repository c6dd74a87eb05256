"""Answers to records: one each, in order, of a run or of the mean of several; a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from mi2p_inject.recipes.evaluation.mean import Answering, combined, notes_of
from mi2p_inject.recipes.evaluation.records import Records
from mi2p_inject.recipes.evaluation.scores import Scored, Scores, Tally
from mi2p_inject.recipes.tasks import Logits

__all__ = ["Answers", "answers_of"]


class Answers:
    """An answer to each record, made while it is iterated; never more than a few batches in memory.

    Args:
        run: what answers.
        scores: of each of its runs, for the same records in batches of one size.
        progress: a bar on stderr.
    """

    def __init__(self, run: Answering, scores: Sequence[Scores], *, progress: bool = False) -> None:
        self.run, self.scores, self.progress = run, tuple(scores), progress
        self._no_input = Tally()
        #: an answer to no record in particular: its keys are those of all answers
        self.example = answers_of(run, np.zeros((1, run.task.outputs), dtype=np.float32))[0]
        self._nothing = {**dict.fromkeys(self.example), **run.task.shown_decision(run.decision)}

    @property
    def records(self) -> Records:
        """What it is asked about."""
        return self.scores[0].records

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """``id``, what `Task.answer` gives (all of it None where there is no input), ``problem`` (str or None)."""
        self._no_input = Tally()
        with tqdm(total=len(self), desc="answering", unit="record", disable=not self.progress, leave=False) as bar:
            for batches in zip(*self.scores, strict=True):
                yield from self._batch(list(zip(*batches, strict=True)))
                bar.update(len(batches[0]))

    @property
    def notes(self) -> list[str]:
        """What a user should know of these records; complete after an iteration."""
        found = list(dict.fromkeys([*notes_of(self.run), *(note for one in self.scores for note in one.notes)]))
        if self._no_input:
            found.append(f"{self._no_input.of(len(self))} have no input and so no answer: {self._no_input}")
        return found

    def _batch(self, records: Sequence[tuple[Scored, ...]]) -> Iterator[dict[str, Any]]:
        """The answers to some records, of each what every run makes of it."""
        read = [record for record in records if any(one.logits is not None for one in record)]
        answers = iter(answers_of(self.run, self._logits(read)) if read else ())
        for record in records:
            problems = list(dict.fromkeys(problem for one in record for problem in one.problems))
            problem = ", ".join(problems) or None
            if any(one.logits is not None for one in record):
                yield {"id": record[0].id, **next(answers), "problem": problem}
                continue
            self._no_input.add(problem or "", record[0].id)
            yield {"id": record[0].id, **self._nothing, "problem": f"no input: {problem}"}

    def _logits(self, records: Sequence[tuple[Scored, ...]]) -> Logits:
        nothing = np.zeros(self.run.task.outputs, dtype=np.float32)
        logits, present = [], []
        for scored in zip(*records, strict=True):
            logits.append(np.stack([nothing if one.logits is None else one.logits for one in scored]))
            present.append(np.array([one.logits is not None for one in scored]))
        return combined(self.run, logits, present)


def answers_of(run: Answering, logits: Logits) -> list[dict[str, Any]]:
    """What `mi2p predict` says about each of (N, outputs) logits."""
    task, shown = run.task, run.task.shown_decision(run.decision)
    decided, probabilities = task.answers(logits, run.decision)
    return [{**task.answer(one, scores), **shown} for one, scores in zip(decided, probabilities, strict=True)]
