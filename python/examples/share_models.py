"""Shares a folder of safetensors from one machine, and fetches it on others; whoever fetches passes on what it has.

    python share_models.py share ./models --registry http://10.0.0.1:7800
    python share_models.py fetch 'llama/**' --registry http://10.0.0.1:7800 --out ./models
    python share_models.py tensors llama/model.safetensors --registry http://10.0.0.1:7800

The last one lists the tensors of a file that stays where it is: it reads the header, and nothing else.
"""

from __future__ import annotations

import argparse
import json

import p2pdi


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("verb", choices=["share", "fetch", "tensors"])
    arguments.add_argument("what", help="a folder to share; a name or a pattern to fetch")
    arguments.add_argument("--registry", required=True)
    arguments.add_argument("--listen", default="0.0.0.0:0")
    arguments.add_argument("--out", default="./out")
    given = arguments.parse_args()
    with p2pdi.Peer(registry=given.registry, listen=given.listen, lan=False) as peer:
        if given.verb == "share":
            share = peer.share(given.what)
            print(f"{peer.name} shares {len(share.documents)} documents; Ctrl-C ends it", flush=True)
            try:
                peer.wait()
            except KeyboardInterrupt:
                pass
        elif given.verb == "fetch":
            for path in peer.fetch(given.what, out=given.out, wait_for_holders=30).display():
                print(path)
        else:
            with peer.open(given.what) as file:
                header = json.loads(file.read_at(8, int.from_bytes(file.read_at(0, 8), "little")))
                for name, tensor in header.items():
                    if name != "__metadata__":
                        print(name, tensor["dtype"], tensor["shape"])


if __name__ == "__main__":
    main()
