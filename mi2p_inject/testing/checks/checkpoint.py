"""Check of the round trip through a checkpoint."""

from __future__ import annotations

import tempfile

import torch

from mi2p_inject.core.errors import Mi2pError
from mi2p_inject.expansion.expanded_model import load
from mi2p_inject.testing.inputs import run
from mi2p_inject.testing.randomize import randomize_zero_parameters
from mi2p_inject.testing.subject import Trial

__all__ = ["check_checkpoint"]

TRAINED = 0.01


def check_checkpoint(trial: Trial) -> None:
    """What is saved comes back on a fresh backbone, bit for bit, the trained backbone too; or saving refuses."""
    me, fresh = trial.expand(), trial.twin()
    randomize_zero_parameters(me.units, strength=1.0)
    with torch.no_grad():
        for parameter in me.backbone.parameters():
            if parameter.is_floating_point():
                parameter.add_(TRAINED)  # what was trained must come from the file
        expected = run(me, trial.inputs, source=trial.source)
        with tempfile.TemporaryDirectory() as folder:
            try:
                me.save_pretrained(folder)
            except Mi2pError as error:
                trial.note(f"saving refuses it: {type(error).__name__}: {str(error).splitlines()[0]}")
                return
            again = load(folder, backbone=fresh, example_inputs=trial.subject.example)
        output = run(again, trial.inputs, source=trial.source)
        trial.equal(output, expected, "a loaded checkpoint gives another output", "the output when it was saved")
    trial.require(
        again.sites == me.sites,
        "a loaded checkpoint has other sites",
        expected=", ".join(site.path for site in me.sites),
        given=", ".join(site.path for site in again.sites),
    )
