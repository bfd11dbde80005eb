# Written by stubs.py. Do not edit.
from ._documents import Fetch as Fetch, RemoteFile as RemoteFile, Share as Share
from ._peer import Messages as Messages, Peer as Peer
from ._registry import Registry as Registry, RegistryClient as RegistryClient

__all__ = ['Fetch', 'RemoteFile', 'Share', 'Messages', 'Peer', 'Registry', 'RegistryClient']
