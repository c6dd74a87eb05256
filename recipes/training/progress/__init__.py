"""What a person sees of a training: bars and lines here, and logs of other tools."""

__all__: list[str] = []
