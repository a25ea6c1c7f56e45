"""docs/tls.md is followed word for word, as an administrator would: its commands make a box that a CT can call."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.support.dcmtk import PATH
from tests.support.free_ports import free_port
from tests.support.listening import ListenerProcess
from tests.support.proof import Tally

PAGE = (Path(__file__).parents[2] / "docs" / "tls.md").read_text()
MISSING = [program for program in ("openssl", "echoscu") if shutil.which(program, path=PATH) is None]


def _blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


def _run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    shell = ["sh", "-euc", f"PATH='{PATH}'\n{script}"]
    return subprocess.run(shell, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.skipif(MISSING != [], reason=f"NOT run: {', '.join(MISSING)} not installed")
@pytest.mark.fault("a stranger sends", "never wrong")
def test_the_page_about_tls_leads_to_a_box_that_is_called_over_tls(tmp_path: Path, tally: Tally) -> None:
    scripts = _blocks("sh")
    made, called = scripts[:3], scripts[3:]
    for script in made:
        done = _run(script, tmp_path)
        assert done.returncode == 0, done.stderr
        tally.count(held=True)
    (tmp_path / "site" / "configs").mkdir(parents=True)
    shutil.copytree(
        tmp_path, tmp_path / "site" / "configs" / "tls", ignore=shutil.ignore_patterns("site", "authority.key")
    )
    box, peers = (tomllib.loads(block) for block in _blocks("toml"))
    port = free_port()
    intake = {**box["intake"], "host": "127.0.0.1", "tls_port": port}
    tables = {"intake": intake, "tls": box["tls"]}
    listener = ListenerProcess.configured(tmp_path / "site", tables, peers=peers, protocols={})
    with listener.running():
        for script in called:
            here = re.sub(r"delineate\.hospital\.example[ :]2762", lambda at: f"127.0.0.1{at[0][-5]}{port}", script)
            done = _run(here, tmp_path)
            assert done.returncode == 0, done.stdout + done.stderr
            tally.count(held=True)
        without = re.sub(r"\+tls \S+ \S+", "+tla", called[0]).replace(
            "delineate.hospital.example 2762", f"127.0.0.1 {port}"
        )
        tally.count(held=_run(without, tmp_path).returncode != 0)
