"""Whether taking away what an explanation names changes a run's answers faster than taking away at random."""
