"""Training on several machines: torchrun starts the processes, and they train one model."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import run
from tests.drawn import write_drawn

ROOT = Path(run.__file__).parent


def test_two_machines_train_one_model(tmp_path: Path) -> None:
    data, output = tmp_path / "drawn.npz", tmp_path / "run"
    write_drawn(data, stills=8, held_out_stills=1, frames=0, wander=4)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    torchrun += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "puppetcam"]
    training = ["run.py", "train", "detector", "--data", str(data), "--output", str(output), "--dry-run"]
    training += ["--preset", "live", "--threads", "1", "--precision", "32-true"]
    machines = [
        subprocess.Popen([*torchrun, *training], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    said = [machine.communicate(timeout=300)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], said
    (events,) = (output / "dry-run").glob("events.*")  # one of them keeps the books
    assert events.stat().st_size > 0
    (row,) = (json.loads(line) for line in (output / "dry-run" / "stats.jsonl").read_text().splitlines())
    assert row["samples"] == 2 * 2 * 2  # steps, samples a step, machines
