"""The settings of a peer, for both kinds of peers."""

from __future__ import annotations

import os

from ._run import addresses, at_least_1, certificates

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from ._run import Address, StrPath


def settings(
    name: str | None,
    *,
    registry: str | None,
    bootnodes: Address | Iterable[Address],
    share: StrPath | None,
    lan: bool,
    state: StrPath | None,
    tls: tuple[StrPath, StrPath, StrPath] | None,
    token: str | None,
    network: str,
    listen: str | None,
    advertise: str | None,
    labels: Mapping[str, str],
    upload_limit: int | None,
    download_limit: int | None,
    quota: int | None,
) -> dict[str, Any]:
    """What the native peer is built with."""
    if name is None:
        host = os.uname().nodename.split(".")[0] if hasattr(os, "uname") else "peer"
        kept = "".join(letter for letter in host if letter.isascii() and (letter.isalnum() or letter == "-")).strip("-")
        name = f"{kept or 'peer'}-{os.urandom(4).hex()}"
    if listen is None:
        # Others on the LAN dial this machine's address; without LAN and registry only this machine does.
        listen = "0.0.0.0:0" if lan else "127.0.0.1:0"
    return {
        "name": name,
        "listen": listen,
        "advertise": advertise,
        "registry": registry,
        "bootnodes": addresses(bootnodes),
        "share": None if share is None else os.fspath(share),
        "lan": lan,
        "state": None if state is None else os.fspath(state),
        "tls": certificates(tls),
        "token": token,
        "network": network,
        "labels": dict(labels),
        "upload_limit": at_least_1("upload_limit", upload_limit),
        "download_limit": at_least_1("download_limit", download_limit),
        "quota": at_least_1("quota", quota),
    }
