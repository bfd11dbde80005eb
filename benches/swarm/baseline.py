"""One peer of the baseline. `make FILE TORRENT`, or `seed|leech LISTEN TORRENT FOLDER PEER...`.

It prints `ready`, waits for a line on standard input, then adds the torrent; prints `seeding` or `done`; ends with its standard input.
"""

import os
import sys
import threading
import time

import libtorrent as lt


def make(content, torrent):
    files = lt.file_storage()
    lt.add_files(files, content)
    # 1.6 to 1.7 times the bound, with eight leechers and the short queues below, where pieces of 256 KiB take 1.8 times.
    made = lt.create_torrent(files, 64 * 1024)
    lt.set_piece_hashes(made, os.path.dirname(content))
    with open(torrent, "wb") as out:
        out.write(lt.bencode(made.generate()))


def run(role, listen, torrent, folder, peers):
    host, port = listen.rsplit(":", 1)
    session = lt.session(
        {
            "listen_interfaces": f"0.0.0.0:{port}",
            "alert_mask": lt.alert.category_t.status_notification | lt.alert.category_t.error_notification,
            "enable_dht": False,
            "enable_lsd": False,
            "enable_upnp": False,
            "enable_natpmp": False,
            # TCP only: uTP yields to queues, which would slow it down here.
            "enable_outgoing_utp": False,
            "enable_incoming_utp": False,
            # Everybody is served: the first seconds of choking would count against it.
            "choking_algorithm": 0,
            "unchoke_slots_limit": -1,
            "seed_choking_algorithm": 0,
            # Short queues: with long ones (by default 500 requests, 3 s) it takes 1.9 times the bound.
            "max_out_request_queue": 32,
            "request_queue_time": 1,
            "connections_limit": 1000,
            "connection_speed": 1000,
            "torrent_connect_boost": 255,
            "min_reconnect_time": 1,
            "peer_turnover_interval": 86400,
            "close_redundant_connections": False,
            "allow_multiple_connections_per_ip": True,
            "max_failcount": 100,
        }
    )
    print("ready", flush=True)
    sys.stdin.readline()
    parameters = lt.add_torrent_params()
    parameters.ti = lt.torrent_info(torrent)
    parameters.save_path = folder
    parameters.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    if role == "seed":
        parameters.flags |= lt.torrent_flags.seed_mode
    torrent = session.add_torrent(parameters)

    def connect():
        for peer in peers:
            host, port = peer.rsplit(":", 1)
            torrent.connect_peer((host, int(port)))

    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    said = False
    next_dial = 0.0
    while not ended.is_set():
        if role == "leech" and not said and time.monotonic() >= next_dial:
            connect()
            next_dial = time.monotonic() + 2
        session.wait_for_alert(20)
        for alert in session.pop_alerts():
            if "error" in type(alert).__name__:
                print(alert, flush=True)
        if not said and torrent.status().is_seeding:
            said = True
            print("seeding" if role == "seed" else "done", flush=True)
    session.pause()


if sys.argv[1] == "make":
    make(sys.argv[2], sys.argv[3])
else:
    run(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], sys.argv[5:])
