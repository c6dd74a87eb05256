"""`mi2p report RUN --html`: one self-contained page about a run."""
