"""`mi2p export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from mi2p_inject.recipes.cli.exit_codes import reported
from mi2p_inject.recipes.cli.paths import typed_path
from mi2p_inject.recipes.cli.run_commands import RunArgument
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["ExportCommand", "export"]


class ExportCommand(TyperCommand):
    """A command whose forms may stand without a PATH, which click's options cannot."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As its base class; behind a form without a PATH comes the current folder."""
        forms = {name for one in self.params if one.metavar == "[PATH]" for name in one.opts}
        given: list[str] = []
        for argument, following in zip(args, [*args[1:], "--"], strict=True):
            given += [argument, "."] if argument in forms and following.startswith("-") else [argument]
        parsed: list[str] = super().parse_args(ctx, given)
        return parsed


def export(
    run: RunArgument,
    onnx: Annotated[
        Path | None,
        typer.Option(
            parser=typed_path, metavar="[PATH]", help="A .onnx file with the weights inside, for onnxruntime."
        ),
    ] = None,
    program: Annotated[
        Path | None, typer.Option(parser=typed_path, metavar="[PATH]", help="A .pt2 file of torch.export, for torch.")
    ] = None,
    aoti: Annotated[
        Path | None,
        typer.Option(
            parser=typed_path, metavar="[PATH]", help="A .pt2 file that AOTInductor compiled for this kind of machine."
        ),
    ] = None,
    torchscript: Annotated[
        Path | None,
        typer.Option(parser=typed_path, metavar="[PATH]", help="A .pt file of torch.jit.trace, for libtorch."),
    ] = None,
    logits: Annotated[bool, typer.Option("--logits", help="Give logits; default: probabilities.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
) -> None:
    """A trained run as one file for other programs, for any number of samples and any text length.

    Beside it stand NAME.json, with all that has to be known to feed it, and NAME.tokenizer/. The file is read back and
    compared with the run before it is kept. Without a PATH the file is named after the run, in the current folder.

    Examples:

    - `mi2p export runs/first --onnx`

    - `mi2p export runs/first --onnx first.onnx --overwrite`
    """
    with reported():
        given = {"onnx": onnx, "program": program, "aoti": aoti, "torchscript": torchscript}
        wanted = [(form, path) for form, path in given.items() if path is not None]
        if len(wanted) != 1:
            raise RecipeError(
                "an export writes one file",
                expected="one of " + ", ".join(f"--{form}" for form in given),
                given=", ".join(f"--{form}" for form, _ in wanted) or "none of them",
                fix="--onnx FILE",
            )
        from mi2p_inject.recipes.export.export_run import TOLERANCE, export_run
        from mi2p_inject.recipes.export.formats import FORMATS

        form, target = wanted[0]
        if target == Path():
            target = Path(run.resolve().name + FORMATS[form].suffix)
        made = export_run(run, target, form, logits=logits, overwrite=overwrite, say=typer.echo)
        sizes = ", ".join(f"{rows}" + (f" x {tokens} tokens" if tokens else "") for rows, tokens in made.checked)
        typer.echo(f"inputs: {', '.join(made.inputs)}; output: {made.output}")
        typer.echo(f"checked against the run: largest difference {made.difference:.1e} (limit {TOLERANCE:g})")
        typer.echo(f"samples: {sizes}")
        typer.echo(f"written: {', '.join(str(target.parent / one) for one in made.files)}")
