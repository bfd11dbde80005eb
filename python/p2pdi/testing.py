"""A registry and peers on free ports, for tests: a context manager, and the pytest fixture ``p2pdi_network``."""

from __future__ import annotations

import os
import tempfile

from ._errors import Error
from ._peer import Peer
from ._registry import Registry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Network", "network"]

# How long a network waits until its peers know each other.
PATIENCE = 30.0
# How many of the peers before it each is linked to: with as many after it, a peer has fewer neighbours than it may have (10).
LINKED = 4


class Network:
    """A registry and peers that know each other: ``registry`` and ``peers``. Iterates over the peers.

    Raises ``Error`` if they do not find each other within 30 seconds.

    >>> with p2pdi.testing.network(2) as network:
    ...     len(network), network[0].name, [peer.name for peer in network]
    (2, 'peer-1', ['peer-1', 'peer-2'])
    """

    registry: Registry
    peers: list[Peer]

    def __init__(self, count: int, documents: Mapping[str, bytes] | None = None, prefix: str = "peer") -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="p2pdi-")
        self.peers = []
        try:
            self.registry = Registry()
            for index in range(count):
                share = os.path.join(self._folder.name, str(index + 1))
                os.mkdir(share)
                if index == 0:
                    for name, content in (documents or {}).items():
                        path = os.path.join(share, name)
                        os.makedirs(os.path.dirname(path), exist_ok=True)
                        with open(path, "wb") as file:
                            file.write(content)
                self.peers.append(Peer(f"{prefix}-{index + 1}", registry=self.registry.url, share=share, lan=False))
            if documents:
                self.peers[0].share(os.path.join(self._folder.name, "1"))
            for index, peer in enumerate(self.peers):
                # Otherwise links of a small network come and go for a while after this returned.
                for other in self.peers[max(0, index - LINKED) : index]:
                    peer.join(other.endpoint)
            for peer in self.peers:
                found = peer.get_peer_count(wait=PATIENCE, expect=count - 1)
                if found < count - 1:
                    raise Error(f"{peer.name} knows {found} of {count - 1} peers after {PATIENCE:g} s")
        except BaseException:
            self.close()
            raise

    def folder(self, peer: Peer) -> str:
        """The folder that a peer shares, which is removed with the network.

        >>> import os
        >>> with p2pdi.testing.network(1, documents={"a.txt": b"hello"}) as network:
        ...     os.listdir(network.folder(network[0]))
        ['a.txt']
        """
        return os.path.join(self._folder.name, str(self.peers.index(peer) + 1))

    def close(self) -> None:
        """Stops all. A second call does nothing.

        >>> network = p2pdi.testing.network(1)
        >>> network.close()
        """
        for peer in self.peers:
            peer.close()
        if hasattr(self, "registry"):
            self.registry.close()
        self._folder.cleanup()

    def __iter__(self) -> Iterator[Peer]:
        return iter(self.peers)

    def __len__(self) -> int:
        return len(self.peers)

    def __getitem__(self, index: int) -> Peer:
        return self.peers[index]

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def network(count: int = 3, documents: Mapping[str, bytes] | None = None, prefix: str = "peer") -> Network:
    """A registry and ``count`` peers called ``peer-1``, ``peer-2`` and so on, which know each other, each with a folder that it shares.

    ``documents``: names and contents, in the folder of the first.

    >>> import p2pdi
    >>> with p2pdi.testing.network(2, documents={"a.txt": b"hello"}) as (one, two):
    ...     two.open("a.txt").read()
    b'hello'
    """
    return Network(count, documents, prefix)
