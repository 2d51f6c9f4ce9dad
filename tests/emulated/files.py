"""Print the SHA-256 of every file that the weather pipeline leaves, run by the command line.

python tests/emulated/files.py
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAIN = "import sys; from streamrnn.cli import main; sys.exit(main())"
DRAWN = ("_manifest.json", "_lock", "_owner")  # times, a process, the name of an output


def call(*arguments: str) -> None:
    subprocess.run([sys.executable, "-c", MAIN, *arguments], check=True, stdout=sys.stderr)


def main() -> None:
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/weather"
        call("run", "pipelines/weather.toml", "--set", f"sink.path={out}")
        call("verify", out)
        for suffix in ("arrow", "parquet"):
            call("state", "export", out, "-o", f"{folder}/state.{suffix}")
        call("convert", "pipelines/weather/model.safetensors", f"{folder}/model.safetensors")
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file() and path.name not in DRAWN:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                print(f"file/{path.relative_to(folder)} {digest}")


if __name__ == "__main__":
    main()
