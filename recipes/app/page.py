"""The page: a picture and a text in, answers and an explanation out. It asks a `Run` and computes nothing itself."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import fastapi
import gradio as gr
import uvicorn
from PIL import Image

from mi2p_inject.core.errors import Mi2pError
from mi2p_inject.recipes.api import Run
from mi2p_inject.recipes.app.render import CSS, EXPLAINED, answer_html, error_html, lines_html
from mi2p_inject.recipes.app.reply import NAMES, given_columns, is_expanded, one_line, reply_to
from mi2p_inject.recipes.characters import in_markdown
from mi2p_inject.recipes.evaluation.run_report import number, reads, title
from mi2p_inject.recipes.explain.result import figure_bytes
from mi2p_inject.recipes.metrics.metric_info import info_of, metrics_of
from mi2p_inject.sources.columns import Columns

__all__ = ["build_page", "served"]

_MAX_FILE = "50mb"  # of an upload

_TOOLS = 44  # pixels above the figure, for the buttons that Gradio lays over it
_OPEN = 12  # columns up to which their inputs are seen at once
_HIDDEN = {"value": None, "visible": False}


def build_page(run: Run) -> gr.Blocks:
    """The page of a run; what it does not read has no input.

    Args:
        run: of any system and task; its model is loaded.

    Raises:
        RecipeError: the run kept no weights, or they are damaged.
    """
    reads, expanded = run.saved.config.model.system.modalities, is_expanded(run)

    with gr.Blocks(title=f"mi2p: {_heading(run)}", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown(f"# {_heading(run)}\n\n{in_markdown(_about(run))}")
        with gr.Row():
            with gr.Column(scale=2):
                image, text = _inputs(reads)
                cells = _column_inputs(run.saved.columns())
                with gr.Row():
                    clear = gr.Button("Clear")
                    button = gr.Button("Answer", variant="primary")
                if lines := _not_there(run, expanded):
                    gr.HTML(lines_html(lines), padding=False, elem_id="not-there")
            with gr.Column(scale=3):
                answer = gr.HTML(lines_html([_invitation(reads)]), padding=False, elem_id="answer")
        remark = gr.HTML(padding=False, elem_id="remark")
        figure = gr.Image(
            show_label=False,
            alt_text="The explanation as a figure; `mi2p explain --json` prints its numbers",
            visible=False,
            interactive=False,
            format="png",
            buttons=["download", "fullscreen"],
            elem_id="explanation",
        )
        ask = _asking(run, expanded)
        outputs, inputs = [answer, remark, figure], [image, text, *cells]
        button.click(ask, inputs, outputs, api_visibility="private", show_progress="minimal")
        text.submit(ask, inputs, outputs, api_visibility="private", show_progress="minimal")
        clear.click(
            lambda: (None, "", *_empty(cells), lines_html([_invitation(reads)]), "", gr.update(**_HIDDEN)),
            None,
            [*inputs, *outputs],
            api_visibility="private",
        )
    return page


def _asking(run: Run, expanded: bool) -> Callable[..., Iterator[tuple[Any, ...]]]:
    """What the button does with picture, text and cells: the answer at once, the explanation when it is computed."""

    def ask(image: str | None, text: str | None, *cells: Any) -> Iterator[tuple[Any, ...]]:
        columns = dict(zip(run.saved.config.data.column_names, cells, strict=True))
        try:
            reply = reply_to(run, image, text, columns)
        except Mi2pError as error:
            yield error_html(one_line(error, image)), "", gr.update(**_HIDDEN)
            return
        if not expanded:
            yield answer_html(reply), "", gr.update(**_HIDDEN)
            return
        if not (image and text and text.strip()):
            yield answer_html(reply), lines_html(["An explanation needs a picture and a text."]), gr.update(**_HIDDEN)
            return
        yield answer_html(reply), lines_html(["The explanation is being computed …"]), gr.update(**_HIDDEN)
        try:
            figure = _drawn(run, image, text, given_columns(columns))
        except Mi2pError as error:
            yield gr.skip(), error_html(f"No explanation. {one_line(error, image)}"), gr.update(**_HIDDEN)
            return
        yield gr.skip(), EXPLAINED, gr.update(value=figure, visible=True)

    return ask


def served(page: gr.Blocks, host: str, port: int) -> uvicorn.Server:
    """A server of the page. Gradio's own `launch` would ask itself over the network, and give up on a busy machine.

    Args:
        page: of `build_page`.
        host: where it will listen.
        port: the same; 0 takes a free one.
    """
    app = gr.mount_gradio_app(
        fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        page,
        path="/",
        server_name=host,
        server_port=port,
        footer_links=[],
        show_error=False,
        max_file_size=_MAX_FILE,
        ssr_mode=False,
        enable_monitoring=False,
        theme=_theme(),
        css=CSS,
    )
    return uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))


def _theme() -> gr.themes.Default:
    """No font that would be fetched, and small print that is dark enough to be read (WCAG 2.2, 1.4.3)."""
    theme = gr.themes.Default(
        primary_hue="blue",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    return theme.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
    )


def _inputs(reads: tuple[str, ...]) -> tuple[gr.Image, gr.Textbox]:
    image = gr.Image(
        label="Picture", sources=["upload", "clipboard"], height=260, visible="image" in reads, elem_id="picture"
    )
    image.preprocess = _as_uploaded  # of a subclass Gradio would write a .pyi file beside this one
    image.async_move_resource_to_block_cache = _only_uploads(image)
    text = gr.Textbox(
        label="Text", lines=2, max_lines=8, visible="text" in reads, elem_id="text", info="Shift+Enter asks, too."
    )
    return image, text


def _column_inputs(columns: Columns | None) -> list[gr.components.Component]:
    """An input for each column that the model reads: a number, or one of its categories or another; empty: missing."""
    if columns is None:
        return []
    inputs: list[gr.components.Component] = []
    with gr.Accordion("Columns: what is left empty is missing", open=len(columns.names) <= _OPEN):
        for name in columns.numeric:
            inputs.append(gr.Textbox(label=name, placeholder="a number"))  # an empty gr.Number is a zero
        for name, known in columns.categorical.items():
            inputs.append(gr.Dropdown([*known], label=name, value=None, allow_custom_value=True))
    return inputs


def _empty(cells: Sequence[gr.components.Component]) -> list[str | None]:
    """The values of inputs of columns that nothing was given to."""
    return ["" if isinstance(one, gr.Textbox) else None for one in cells]


def _only_uploads(image: gr.Image) -> Callable[[str | Path | None], Awaitable[str | None]]:
    """Refuses what a forged request names: files of this machine, and addresses, which Gradio would fetch.

    Gradio checks paths only of a page that its own `launch` serves.
    """
    taken, folder = image.async_move_resource_to_block_cache, Path(image.GRADIO_CACHE).resolve()

    async def only_uploads(path: str | Path | None) -> str | None:
        if path is not None and not Path(path).resolve().is_relative_to(folder):
            raise gr.Error("Only what was uploaded is read.", print_exception=False)
        found: str | None = await taken(path)
        return found

    return only_uploads


def _as_uploaded(payload: Any) -> str | None:
    """The file as it is: the run opens it as it opens all pictures, and says what is wrong with it."""
    return None if payload is None else str(payload.path)


def _drawn(run: Run, image: str, text: str, columns: Mapping[str, Any]) -> Image.Image:
    found = figure_bytes(run.explain(image, text, columns=columns).figure())
    drawn = Image.open(io.BytesIO(found)).convert("RGB")
    page = Image.new("RGB", (drawn.width, drawn.height + _TOOLS), "white")
    page.paste(drawn, (0, _TOOLS))
    return page


def _heading(run: Run) -> str:
    config = run.saved.config.model
    return str(config.system.describe(config))


def _about(run: Run) -> str:
    """What it is, and how good it was."""
    split = "test" if run.numbers.get("test") else "validation"
    scores = run.numbers.get(split) or {}
    said = [f"{title(name)} {number(name, scores[name]['value'])}{_unit(name)}" for name in metrics_of(scores)]
    lines = [f"{reads(run.saved)}; {len(run.classes)} classes."]
    if said:
        lines.append(f"On its {split} split: {', '.join(said)}.")
    return " ".join(lines)


def _unit(metric: str) -> str:
    return " %" if info_of(metric).percent else ""


def _invitation(reads: tuple[str, ...]) -> str:
    return f"Give a {' or a '.join(NAMES[one] for one in NAMES if one in reads)}" + (
        ", or both, and ask for the answer." if len(reads) > 1 else " and ask for the answer."
    )


def _not_there(run: Run, expanded: bool) -> list[str]:
    """Why an input or the explanation is not there."""
    model = run.saved.config.model
    lines = [
        f"This model does not read a {name}, so there is no input for one."
        for modality, name in NAMES.items()
        if modality not in model.system.modalities
    ]
    if not expanded:
        lines.append(f"There is no explanation: nothing in a model {model.model!r} attends to another modality.")
    return lines
