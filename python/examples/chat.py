"""A chat. In one terminal, then in another:

    python chat.py alice --listen 127.0.0.1:8001
    python chat.py bob --join 127.0.0.1:8001

A line goes to all; `@bob hello` goes to bob only. Ctrl-C or Ctrl-D ends it.
"""

from __future__ import annotations

import argparse

import p2pdi


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("name")
    arguments.add_argument("--listen", default="127.0.0.1:0")
    arguments.add_argument("--join", action="append", default=[])
    given = arguments.parse_args()
    with p2pdi.Peer(given.name, listen=given.listen, lan=False) as peer:

        @peer.on("chat")
        def show(message: p2pdi.Message) -> None:
            print(f"{message.sender}{'' if message.broadcast else ' (to you)'}: {message.text}", flush=True)

        print(f"{peer.name} listens on {peer.endpoint}", flush=True)
        for joined in peer.bootstrap(given.join) if given.join else ():
            print(f"joined {joined}", flush=True)
        while True:
            try:
                line = input()
            except (EOFError, KeyboardInterrupt):
                return
            try:
                to, _, text = line[1:].partition(" ") if line.startswith("@") else ("", "", line)
                if to:
                    peer.whisper(to, text, kind="chat")
                else:
                    peer.broadcast("chat", text)
            except p2pdi.Error as error:
                print(f"not sent: {error}")


if __name__ == "__main__":
    main()
