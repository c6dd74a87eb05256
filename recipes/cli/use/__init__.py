"""Commands that hand a trained run on."""
