# Written by stubs.py. Do not edit.
from ._run import Address as Address, StrPath as StrPath, addresses as addresses, at_least_1 as at_least_1, certificates as certificates
from collections.abc import Iterable, Mapping
from typing import Any

TYPE_CHECKING: bool

def settings(name: str | None, *, registry: str | None, bootnodes: Address | Iterable[Address], share: StrPath | None, lan: bool, state: StrPath | None, tls: tuple[StrPath, StrPath, StrPath] | None, token: str | None, network: str, listen: str | None, advertise: str | None, labels: Mapping[str, str], upload_limit: int | None, download_limit: int | None, quota: int | None) -> dict[str, Any]: ...
