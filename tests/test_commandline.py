"""The command line as a user meets it."""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import run

ROOT = Path(run.__file__).parent


def commands() -> list[str]:
    actions = run._parser()._actions
    return [name for a in actions if isinstance(a, argparse._SubParsersAction) for name in a.choices]


def test_help_lists_every_subcommand_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run.main(["--help"])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    for name in commands():
        assert re.search(rf"^ +{name}\s+\w+ .*\w", said, re.MULTILINE), name  # a long name's line is the next one


@pytest.mark.parametrize("name", commands())
def test_every_subcommand_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run.main([name, "--help"])
    assert stopped.value.code == 0
    assert f"usage: puppetcam {name}" in capsys.readouterr().out


def test_help_imports_nothing_heavy() -> None:
    code = "import atexit, sys, run; atexit.register(lambda: print(*sys.modules)); run.main(['--help'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"numpy", "cv2", "av", "mediapipe", "openvino", "torch"} & set(done.stdout.split())


def test_info_is_what_a_bug_report_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["info"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert "CPU" in facts["engines"]["openvino"]
    assert facts["processor"]["threads"] >= 1
    assert len(facts["model"]["weights_sha256"]) == 64
    assert facts["packages"]["openvino"]


def test_build_says_a_word_per_graph(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["build", "--engine", "openvino", "--precision", "f32"]) == 0
    said = capsys.readouterr().out
    for graph in ("detector", "target_encoder", "generator"):
        assert f"{graph}: " in said


def test_the_live_program_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['onnx'] = None\n"
        "import run; sys.exit(run.main(['build']) or run.main(['info']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert '"torch": "not installed"' in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "tensorflow"], "there is no engine 'tensorflow'"),
        (["--device", "TPU"], "no device 'TPU'"),
        (["--bundle", "nowhere"], "there is no model bundle nowhere"),
        (["--threads", "0"], "threads"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_code_2(options: list[str], message: str) -> None:
    command = [sys.executable, "run.py", "build", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
