"""Messages of a blocking peer, to iterate over."""

from __future__ import annotations

from . import _run
from ._errors import Closed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._p2pdi import Inbox, Message
    from ._run import Seconds


class Messages:
    """Messages to iterate over; see :meth:`Peer.messages`. Ends when the peer is closed.

    >>> with p2pdi.testing.network(2) as (one, two):
    ...     messages = two.messages()
    ...     _ = one.whisper(two.name, "hello")
    ...     message = next(messages)
    >>> message.sender, message.text, messages.lost
    ('peer-1', 'hello', 0)
    """

    def __init__(self, inbox: Inbox) -> None:
        self._inbox: Inbox | None = inbox
        #: Messages that were dropped because this was read too slowly.
        self.lost = 0

    def next(self, timeout: Seconds | None = None) -> Message:
        """The next message. Raises ``PeerTimeout`` after ``timeout``, and ``Closed`` at the end.

        >>> with p2pdi.Peer("alice", lan=False) as alice:
        ...     try:
        ...         alice.messages("NEWS").next(timeout=0.1)
        ...     except p2pdi.PeerTimeout as error:
        ...         print(error)
        the next message: no answer within 0.1 s
        """
        inbox = self._inbox
        if inbox is None:
            raise Closed("these messages were closed")
        message, lost = _run.wait(inbox.next(), timeout, "the next message")
        self.lost += lost
        return message

    def close(self) -> None:
        """Reads no more, also for a thread that waits in :meth:`next`. A second call does nothing.

        >>> with p2pdi.Peer("alice", lan=False) as alice:
        ...     messages = alice.messages()
        ...     messages.close()
        ...     list(messages)
        []
        """
        inbox, self._inbox = self._inbox, None
        if inbox is not None:
            inbox.close()

    def __iter__(self) -> Iterator[Message]:
        return self

    def __next__(self) -> Message:
        try:
            return self.next()
        except Closed:
            raise StopIteration from None

    def __enter__(self) -> Messages:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
