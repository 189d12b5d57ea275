"""The control panel: video files, the benchmark, and what the operator wants to know. Gradio, on the same server."""

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported

import gradio as gr
from fastapi import FastAPI

from realtime import report
from realtime.bench import measure
from realtime.errors import InputError
from realtime.motion import motion_names
from realtime.photo import load_photo, portrait_names
from realtime.puppet import Puppet
from realtime.retarget import MOTIONS, REFERENCES, RetargetSettings
from realtime.sources import open_source
from realtime.video import look_ahead, reenact
from web.mark import add_mark
from web.studio import Studio
from web.upload import decode_photo

FONT = ["system-ui", "-apple-system", "Segoe UI", "sans-serif"]  # none is fetched
MONO = ["ui-monospace", "Consolas", "monospace"]
UPLOAD_BYTES = 500 << 20
HOME_LINK = '<a href="/">← the live page</a>'


def mount_panel(app: FastAPI, panel: gr.Blocks, folder: Path) -> None:
    """Put the panel under /panel; files of `folder` are served from there."""
    theme = gr.themes.Base(primary_hue="amber", neutral_hue="slate", font=FONT, font_mono=MONO)
    gr.mount_gradio_app(
        app,
        panel,
        "/panel",
        theme=theme,
        allowed_paths=[str(folder)],
        max_file_size=UPLOAD_BYTES,
        ssr_mode=False,
        footer_links=[],
    )


@contextmanager
def _plain_errors() -> Iterator[None]:
    """What a person can put right is shown to them as a sentence."""
    try:
        yield
    except (InputError, RuntimeError) as error:  # RuntimeError: an engine's
        raise gr.Error(str(error), print_exception=False) from error


def _run_video(studio: Studio, folder: Path) -> Callable[..., str]:
    def run(
        film: str | None,
        motion: str,
        upload: str | None,
        portrait: str,
        agreed: bool,
        kind: str,
        reference: str,
        beside: bool,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 # how Gradio finds it
    ) -> str:
        with _plain_errors(), ExitStack() as stack:
            if upload and not agreed:
                raise InputError("a photo needs the word that the person in it agreed")
            photo = decode_photo(Path(upload).read_bytes(), gr.Info) if upload else load_photo(portrait)
            settings = RetargetSettings(kind, reference)
            driven_by = film or f"motion:{motion}"
            source = stack.enter_context(closing(open_source(driven_by, gr.Info)))
            models = stack.enter_context(studio.pool.lend())
            puppet = stack.enter_context(closing(Puppet(models, photo, settings, gr.Info)))

            def counter(what: str) -> Callable[[], None]:
                numbers = itertools.count(1)
                return lambda: progress((next(numbers), source.frame_count), desc=what, unit="frames")

            if reference == "best":
                look_ahead(driven_by, models.detect, puppet.retargeter, counter("Looking for the neutral"), gr.Info)

            def animate(frame: Any) -> Any:
                result = puppet.animate(frame)
                if studio.mark:
                    add_mark(result.image)
                return result

            handle, name = tempfile.mkstemp(".mp4", "puppetcam-", folder)
            os.close(handle)
            size = (photo.shape[1], photo.shape[0])
            reenact(
                source,
                animate,
                Path(name),
                size=size,
                overwrite=True,
                side_by_side=beside,
                on_frame=counter("Frames"),
                notify=gr.Info,
            )
            return name

    return run


def _run_bench(studio: Studio, folder: Path) -> Callable[..., tuple[str, str]]:
    def run(seconds: float) -> tuple[str, str]:
        with _plain_errors(), studio.pool.lend() as models:
            figures = [measure(models, load_photo(studio.target), None, seconds)]
        handle, name = tempfile.mkstemp(".png", "stages-", folder)
        os.close(handle)
        report.plot(figures, Path(name))
        return name, report.table(figures)

    return run


def build_panel(studio: Studio, folder: Path, people: Callable[[], int]) -> gr.Blocks:
    """The panel. folder: for what it is given and makes, removed by its owner; people: how many sessions there are."""
    os.environ["GRADIO_TEMP_DIR"] = str(folder)  # read by every part of the panel as it is made
    with gr.Blocks(title="Puppetcam: files and benchmark", analytics_enabled=False) as panel:
        gr.HTML(HOME_LINK)
        with gr.Tab("Video file"):
            _video_tab(studio, folder)
        with gr.Tab("Benchmark"):
            gr.Markdown("Measures real frames through the models, apart from live sessions: end those first.")
            seconds = gr.Slider(2, 60, 10, step=1, label="Seconds")
            measure_button = gr.Button("Measure", variant="primary")
            chart = gr.Image(label="Stages", type="filepath", interactive=False, buttons=["download", "fullscreen"])
            table = gr.Code(label="Figures", language=None, interactive=False)
            measure_button.click(_run_bench(studio, folder), [seconds], [chart, table], concurrency_limit=1)
        with gr.Tab("Operator"):
            _operator_tab(studio, people)
    return panel  # type: ignore[no-any-return] # Gradio's context manager has no type


def _video_tab(studio: Studio, folder: Path) -> None:
    with gr.Row():
        with gr.Column():
            film = gr.File(label="Video that drives", file_types=["video"], type="filepath")
            motion = gr.Dropdown(motion_names(), value="demo", label="Or a recorded motion")
            upload = gr.File(label="Photo", file_types=["image"], type="filepath")
            agreed = gr.Checkbox(label="The person in the photo agreed")
            portrait = gr.Dropdown(portrait_names(), value="hopper", label="Or a portrait that ships")
        with gr.Column():
            kind = gr.Radio(list(MOTIONS), value="relative", label="Motion")
            reference = gr.Radio(list(REFERENCES), value="first", label="The source's neutral")
            beside = gr.Checkbox(label="Show the source beside the result")
            button = gr.Button("Make the video", variant="primary")
            player = gr.Video(label="Result", interactive=False)
    choices = [film, motion, upload, portrait, agreed, kind, reference, beside]
    button.click(_run_video(studio, folder), choices, player, concurrency_limit=1)


def _operator_tab(studio: Studio, people: Callable[[], int]) -> None:
    def facts() -> list[list[str]]:
        return [
            ["People now", f"{people()} of {studio.sessions}"],
            ["Engine", studio.pool.runs],
            ["Models", "one set for all, in batches" if studio.pool.batcher else "a set for each person"],
            ["Asked for", studio.asked or "the best there is"],
            ["Target at first", studio.target],
            ["Source without a camera", studio.source],
            ["Mark in the picture", "on" if studio.mark else "off"],
        ]

    table = gr.Dataframe(headers=["Setting", "Value"], interactive=False)
    gr.Button("Look again").click(facts, None, table)
    gr.Markdown("These are set where the server is started: `python run.py live --help`.")
