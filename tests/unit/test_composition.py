"""What docker-compose.yml and the image promise, read from their text: no container engine is needed."""

import re
import shutil
from pathlib import Path

import pytest

from appliance.running.roles import ROLES
from appliance.settings import load_settings

ROOT = Path(__file__).parents[2]
COMPOSITION = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "ops" / "images" / "appliance.Dockerfile").read_text(encoding="utf-8")


def block(text: str, key: str, indent: int = 0) -> str:
    """The lines under `key:` at this indent, comments left out."""
    lines = [line for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    start = next(number for number, line in enumerate(lines) if line.startswith(f"{' ' * indent}{key}:"))
    inside = [lines[start]]
    for line in lines[start + 1 :]:
        if not line.startswith(" " * (indent + 1)):
            break
        inside.append(line)
    return "\n".join(inside)


def service(name: str) -> str:
    """Everything that holds for a service: its own lines, and before them those of the anchor that it merges."""
    own = block(block(COMPOSITION, "services"), name, indent=2)
    return (block(COMPOSITION, "x-appliance") + "\n" if "<<: *appliance" in own else "") + own


SERVICES = re.findall(r"^  (\w+):$", block(COMPOSITION, "services"), re.MULTILINE)
OWN = [name for name in SERVICES if "*appliance" in service(name)]


def test_every_process_of_the_appliance_is_a_service_of_its_own() -> None:
    commands = [re.search(r'command: \["(\w+)"\]', service(name)) for name in OWN]
    assert {found.group(1) for found in commands if found} == {*ROLES, "migrate"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_runs_without_root_without_capabilities_and_on_a_read_only_file_system(name: str) -> None:
    text = service(name)
    users = re.findall(r'user: "(\d+):\d+"', text)
    assert len(users) == 1
    assert int(users[0]) > 0
    assert text.count("read_only: true") == 1
    assert text.count("cap_drop: [ALL]") == 1
    assert text.count('security_opt: ["no-new-privileges:true"]') == 1
    for loophole in ("read_only: false", "cap_add", "privileged", "network_mode", "pid:", "devices:"):
        assert loophole not in text


@pytest.mark.parametrize("name", SERVICES)
def test_the_image_of_a_service_has_a_fixed_version(name: str) -> None:
    (image,) = re.findall(r"image: \$\{\w+:-([^}]+)\}", service(name))
    assert re.search(r":\d+\.\d+", image), image
    assert "latest" not in image


@pytest.mark.parametrize("name", [name for name in OWN if name != "migrate"])
def test_a_process_says_whether_it_is_healthy_and_starts_again_when_it_dies(name: str) -> None:
    text = service(name)
    (command,) = re.findall(r'command: \["(\w+)"\]', text)
    assert f'["CMD", "healthcheck", "{command}"]' in text
    assert "restart: unless-stopped" in text


def test_no_container_can_reach_the_container_engine() -> None:
    assert "docker.sock" not in COMPOSITION
    assert "docker.sock" not in DOCKERFILE


def test_the_configuration_is_mounted_read_only_and_the_spool_is_one_volume_for_all() -> None:
    volumes = re.findall(r"^    - (.+)$", block(COMPOSITION, "x-appliance"), re.MULTILINE)
    assert [volume.endswith(":ro") for volume in volumes if "/etc/delineate" in volume] == [True, True]
    assert "spool:/var/lib/delineate" in volumes
    assert not any("volumes:" in block(block(COMPOSITION, "services"), name, indent=2) for name in OWN)


def test_passwords_come_from_the_environment_file_alone() -> None:
    secrets = re.findall(r"PASSWORD: (.+)$", COMPOSITION, re.MULTILINE)
    assert secrets
    assert all(secret.startswith("${DELINEATE_DATABASE_PASSWORD:?") for secret in secrets)
    settings = (ROOT / "ops" / "images" / "appliance.toml").read_text(encoding="utf-8")
    assert re.search(r'^url = "postgresql://delineate@', settings, re.MULTILINE)


def test_the_listener_needs_no_other_service_and_no_password() -> None:
    own = block(block(COMPOSITION, "services"), "listener", indent=2)
    assert "depends_on" not in own
    assert "networks: [clinical]" in own
    assert "environment:" in own  # its own, instead of the one with the password
    assert "PASSWORD" not in own


def test_only_the_dicom_ports_are_published_and_on_loopback_unless_told_otherwise() -> None:
    published = [line.strip() for line in COMPOSITION.splitlines() if "ports:" in line]
    address = "${DELINEATE_LISTEN_ADDRESS:-127.0.0.1}"
    plain, tls = f"{address}:${{DELINEATE_LISTEN_PORT:-11112}}:11112", f"{address}:${{DELINEATE_TLS_PORT:-2762}}:2762"
    assert published == [f'ports: ["{plain}", "{tls}"]']
    assert "internal: true" in block(block(COMPOSITION, "networks"), "rows", indent=2)


def test_the_image_has_a_pinned_base_no_root_and_no_reports_to_a_maker() -> None:
    (base,) = re.findall(r"^ARG BASE_IMAGE=(.+)$", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base)
    assert base in COMPOSITION
    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE) == ["10001:10001"]
    assert "ORT_DISABLE_TELEMETRY=1" in DOCKERFILE


def test_the_containers_configuration_is_one_that_the_appliance_accepts(tmp_path: Path) -> None:
    folder = tmp_path / "configs"
    shutil.copytree(ROOT / "configs", folder)
    shutil.copy(ROOT / "ops" / "images" / "appliance.toml", folder / "appliance.toml")
    settings = load_settings(folder)
    assert settings.data_dir == Path("/var/lib/delineate")
    assert settings.database_url == "postgresql://delineate@database/delineate"
    assert settings.broker_url == "redis://broker:6379/0"
    assert settings.intake.host == "0.0.0.0"
    assert {"generic", "eclipse"} <= settings.planning_systems.keys()  # the whole folder is mounted
