"""Where and on what a race is run, and what is kept of it."""

import datetime
import json
import os
import pathlib
import platform
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def machine():
    """Where and on what the race is run."""
    def said(*command):
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    changed = said("git", "status", "--porcelain", "--", ".", ":!benchmarks/record")
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": said("git", "rev-parse", "HEAD") or "unknown",
        "changed_since_commit": changed != "",
        "cpu": processor(),
        "cores": os.cpu_count(),
        "compiler": said("rustc", "--version") or "unknown",
    }


def processor():
    """The processor's name for itself, or its architecture where it has none."""
    try:
        with open("/proc/cpuinfo") as file:
            lines = [line.split(":", 1) for line in file if ":" in line]
    except OSError:
        lines = []
    fields = {}
    for name, value in lines:
        fields.setdefault(name.strip(), value.strip())
    if "model name" not in fields:
        return platform.machine()
    if "cpu family" in fields and "model" in fields:
        return f"{fields['model name']} (family {fields['cpu family']}, model {fields['model']})"
    return fields["model name"]


def relative(word):
    """A path inside the tree by its place there; no other path says where this machine keeps things."""
    if word.startswith(str(ROOT)):
        return os.path.relpath(word, ROOT)
    return pathlib.Path(word).name if word.startswith("/") else word


def keep(record, name):
    """Writes the record, whole or not at all; where."""
    folder = ROOT / "benchmarks/record"
    folder.mkdir(parents=True, exist_ok=True)
    stamp = record["date"].replace("-", "").replace(":", "").replace("T", "_").rstrip("Z")
    path = folder / f"{stamp}_{name}.json"
    part = path.with_suffix(".part")
    part.write_text(json.dumps(record, indent=2) + "\n")
    part.rename(path)
    return path.relative_to(ROOT)
