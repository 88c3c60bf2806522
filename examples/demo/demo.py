"""`make demo`: starts the fake providers, runs `understudy run` on 2,000 prompts against them, and stops them.

An interrupted demo resumes where it stopped; a finished one starts over.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
FOLDER = Path(".demo")
START_S = 10.0


def start_mock(ready: Path) -> subprocess.Popen[bytes]:
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-P", "-m", "understudy.worker.mock", "--config", str(HERE / "mock.toml"), "--port", "0"]
    return subprocess.Popen(
        [*command, "--ready-file", str(ready), "--exit-with-parent"],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def wait_for(ready: Path, mock: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and mock.poll() is None:
        if ready.exists() and (url := ready.read_text().strip()):
            return url
        time.sleep(0.05)
    sys.exit("the fake providers did not start; try `understudy mock` to see why")


def main() -> int:
    # Ctrl-C goes to the run, which drains and needs the fake providers until it ends.
    signal.signal(signal.SIGINT, lambda *_: None)
    FOLDER.mkdir(exist_ok=True)
    ready = FOLDER / "mock-url"
    mock = start_mock(ready)
    try:
        url = wait_for(ready, mock)
        config = FOLDER / "understudy.toml"
        config.write_text((HERE / "understudy.toml").read_text().replace("MOCK", url))
        keys = {f"{name}_API_KEY": f"sk-demo-{name.lower()}" for name in ("LEAD", "SECOND", "THIRD")}
        command = [str(Path(sys.executable).with_name("understudy")), "run", str(HERE / "prompts.jsonl")]
        results = FOLDER / "results.jsonl"
        if results.exists():
            results.unlink()
            command.append("--fresh")
        command += ["-o", str(results), "--max-concurrency", "250"]
        command += ["--config", str(config), "--data", str(FOLDER / "data")]
        return subprocess.call(command, env={**os.environ, **keys})
    finally:
        mock.terminate()
        mock.wait()


if __name__ == "__main__":
    sys.exit(main())
