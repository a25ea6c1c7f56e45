"""A real Orthanc as the PACS, started for a test on free loopback ports."""

import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

from tests.support.certificates import Holder


class Orthanc:
    """Orthanc with its own storage folder; it knows the appliance and stores, finds and commits for it."""

    AE_TITLE = "ORTHANC"

    def __init__(
        self, folder: Path, *, dicom_port: int, http_port: int, appliance_port: int, tls: Holder | None = None
    ) -> None:
        self.dicom_port, self._http_port = dicom_port, http_port
        folder.mkdir(parents=True, exist_ok=True)
        self._configuration = folder / "orthanc.json"
        self._log = folder / "orthanc.log"
        settings: dict[str, Any] = {
            "Name": "Test",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "DicomAet": self.AE_TITLE,
            "DicomPort": dicom_port,
            "HttpPort": http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomModalities": {"delineate": ["DELINEATE", "127.0.0.1", appliance_port]},
            "StableAge": 2,
        }
        box = {"AET": "DELINEATE", "Host": "127.0.0.1", "Port": appliance_port}
        if tls is not None:
            settings |= {
                "DicomTlsEnabled": True,
                "DicomTlsRemoteCertificateRequired": True,
                "DicomTlsCertificate": str(tls.files.certificate),
                "DicomTlsPrivateKey": str(tls.files.key),
                "DicomTlsTrustedCertificates": str(tls.files.authorities),
                "DicomModalities": {"delineate": {**box, "UseDicomTls": True}},
            }
        self._configuration.write_text(json.dumps(settings))
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def program() -> str | None:
        """Where Orthanc is installed, if it is."""
        return shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")

    def start(self) -> None:
        program = self.program()
        assert program is not None
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([program, str(self._configuration)], stdout=log, stderr=log)
        for _ in range(200):
            try:
                self.get("/system")
            except OSError:
                assert self._process.poll() is None, self._log.read_text()
                time.sleep(0.1)
            else:
                return
        raise AssertionError(self._log.read_text())

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)

    def get(self, path: str) -> Any:
        """JSON of a REST route."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._http_port}{path}", timeout=10) as answer:
            return json.load(answer)

    def post(self, path: str, body: object) -> Any:
        """JSON that a REST route answers to JSON.

        Raises:
            OSError: Orthanc could not do it.
        """
        asked = json.dumps(body).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{self._http_port}{path}", asked, timeout=20) as answer:
            return json.load(answer)

    def get_file(self, path: str) -> bytes:
        """Bytes of a REST route."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._http_port}{path}", timeout=10) as answer:
            return bytes(answer.read())

    def delete(self, path: str) -> None:
        """DELETE of a REST route."""
        request = urllib.request.Request(f"http://127.0.0.1:{self._http_port}{path}", method="DELETE")
        with urllib.request.urlopen(request, timeout=10):  # noqa: S310 - loopback
            pass

    def objects(self, modality: str) -> list[bytes]:
        """Every object of a modality that it holds, as files."""
        series = [self.get(f"/series/{one}") for one in self.get("/series")]
        wanted = [one for one in series if one["MainDicomTags"]["Modality"] == modality]
        return [self.get_file(f"/instances/{instance}/file") for one in wanted for instance in one["Instances"]]

    def structure_sets(self) -> list[bytes]:
        """Every RT Structure Set that it holds, as files."""
        return self.objects("RTSTRUCT")
