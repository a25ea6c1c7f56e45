"""The other writers and readers of structure sets, from PyPI, in virtual environments of their own."""

import json
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = {
    "current": ("rt-utils==1.2.7", "pydicomrt==0.9.1", "plastimatch==1.10.0", "DicomRTTool==6.2.0"),
    "older": ("pydicom<3", "dcmrtstruct2nii==5", "platipy==0.7.2"),
}
"""By virtual environment; in the older one is what does not run with pydicom 3."""
PEERS = {
    "rt-utils": "current",
    "pydicomrt": "current",
    "plastimatch": "current",
    "DicomRTTool": "current",
    "dcmrtstruct2nii": "older",
    "platipy": "older",
}


class Peers:
    """Which Python runs whom, and who could not be installed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.versions: dict[str, str] = {}
        self.complaints: list[str] = []

    def install(self) -> None:
        for name, requirements in REQUIREMENTS.items():
            if not self._python(name).exists():
                print(f"Installing {', '.join(requirements)} …")
                subprocess.run([sys.executable, "-m", "venv", self._folder / name], check=True)
                for requirement in requirements:  # one by one: what one lacks must not keep the others away
                    wanted = [requirement, *(["pydicom<3"] if name == "older" else [])]
                    done = self._pip(name, "install", "--quiet", *wanted)
                    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
                    self.complaints += [f"{requirement} could not be installed: {errors[-1]}"] if errors else []
            listed = json.loads(self._pip(name, "list", "--format=json").stdout or "[]")
            found = {one["name"].casefold(): one["version"] for one in listed}
            self.versions |= {
                peer: found[peer.casefold()]
                for peer, where in PEERS.items()
                if where == name and peer.casefold() in found
            }

    def python_of(self, name: str) -> Path | None:
        """Return the Python that has it; None if it is not there."""
        if name not in PEERS:
            return Path(sys.executable)
        return self._python(PEERS[name]).absolute() if name in self.versions else None

    def _python(self, venv: str) -> Path:
        return self._folder / venv / "bin" / "python"

    def _pip(self, venv: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._python(venv), "-m", "pip", "--disable-pip-version-check", *words],
            capture_output=True,
            text=True,
            check=False,
        )
