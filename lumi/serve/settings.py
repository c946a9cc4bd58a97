"""Where the server listens and for whom."""

import dataclasses
import ipaddress
from collections.abc import Sequence

from lumi.errors import ConfigError

_KEY_CHARS = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Where the server listens and for whom.

    Attributes:
        host: address to listen on. 127.0.0.1 is this machine only; any other needs a key.
        port: 0 takes a free one.
        api_key: what clients send as a bearer token; at least 16 characters. Best in the environment as LUMI_API_KEY.
        hosts: further names under which the server may be called, such as that of a proxy.
        preferences: file that pairs of the page are appended to; null keeps none.
        drain_seconds: running answers may take so long to end when the server is stopped.
        header_seconds, body_seconds: a client may take so long to send a request.
        write_seconds: a client that reads nothing for so long is left.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    hosts: Sequence[str] = ()
    preferences: str | None = None
    drain_seconds: float = 10.0
    header_seconds: float = 10.0
    body_seconds: float = 30.0
    write_seconds: float = 30.0

    def __post_init__(self) -> None:
        """Raises ConfigError for a server that would be open to others without a key, and for values out of range."""
        if not 0 <= self.port < 65536:
            raise ConfigError(f"server.port={self.port}", "must be from 0 to 65535", "0 takes a free one")
        if self.api_key is not None and len(self.api_key) < _KEY_CHARS:
            raise ConfigError(
                f"server.api_key of {len(self.api_key)} characters",
                f"must have at least {_KEY_CHARS}",
                "export LUMI_API_KEY=$(python -c 'import secrets; print(secrets.token_urlsafe())')",
            )
        if not self.local and self.api_key is None:
            raise ConfigError(
                f"server.host={self.host}",
                "others can reach it, so it needs a key",
                "export LUMI_API_KEY=$(python -c 'import secrets; print(secrets.token_urlsafe())'), or server.host=127.0.0.1",
            )
        if self.drain_seconds < 0:
            raise ConfigError(f"server.drain_seconds={self.drain_seconds}", "must be at least 0")
        for name in ("header_seconds", "body_seconds", "write_seconds"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"server.{name}={getattr(self, name)}", "must be above 0")

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def names(self) -> frozenset[str] | None:
        """Names under which it may be called; None is any: who has the key has it under every name."""
        if self.local:
            return frozenset(
                {"localhost", "127.0.0.1", "[::1]", self.host.lower(), *(name.lower() for name in self.hosts)}
            )
        return frozenset(name.lower() for name in self.hosts) or None
