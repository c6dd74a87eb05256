"""A page in the browser that asks a trained run: `mi2p app`."""
