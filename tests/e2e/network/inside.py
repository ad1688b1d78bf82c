"""What runs inside the pods of the network tests: a server that says who it is and who asked, and a prober on orders.

Only the standard library: it is given to `python3 -c` in the host image. `serve NAME TCP,.. UDP,..` answers every
connection and datagram with a line "NAME PEER" and echoes what follows; `probe` takes orders as JSON lines on its
standard input and answers each by a line, so that one `kubectl exec` serves hundreds of questions.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

TIMEOUT = 2.8  # seconds: the kernel repeats what opens a connection after one second, and again after three


def plain(address):
    return address[7:] if address.startswith("::ffff:") else address


def serve(name, tcp_ports, udp_ports):
    """Until SIGTERM; LINGER in the environment: for so many seconds after it."""

    def stop(*_):
        time.sleep(float(os.environ.get("LINGER", "0")))
        os._exit(0)

    def converse(connection, peer):
        with connection:
            connection.sendall(f"{name} {plain(peer[0])}\n".encode())
            while data := connection.recv(65536):
                connection.sendall(data)

    def listen(listener):
        while True:
            connection, peer = listener.accept()
            threading.Thread(target=quietly, args=(converse, connection, peer), daemon=True).start()

    def answer(channel):
        while True:
            _, peer = channel.recvfrom(65536)
            quietly(channel.sendto, f"{name} {peer[0]}\n".encode(), peer)

    for port in udp_ports:
        for family, any_address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            channel = socket.socket(family, socket.SOCK_DGRAM)
            if family == socket.AF_INET6:
                channel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            channel.bind((any_address, port))
            threading.Thread(target=answer, args=(channel,), daemon=True).start()
    ports = []
    for port in tcp_ports:  # last: who is asked there whether it is ready is so for UDP as well
        listener = socket.create_server(
            ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=512
        )
        ports.append(listener.getsockname()[1])
        threading.Thread(target=listen, args=(listener,), daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=stop).start())
    print("serving", *ports, flush=True)
    while True:
        signal.pause()


def quietly(function, *arguments):
    try:
        return function(*arguments)
    except OSError:
        return None


# The prober


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def resolve(name):
    """The first address of a name, asked anew, as a client does that looks it up for every request."""
    return socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0][4][0]


def ask(order):
    """The line an endpoint answers, or the name of the error."""
    tcp = order.get("protocol", "TCP") == "TCP"
    try:
        address, port = order.get("address") or resolve(order["name"]), order["port"]
    except OSError as error:
        return type(error).__name__
    channel = socket.socket(family_of(address), socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
    with channel:
        channel.settimeout(order.get("timeout", TIMEOUT))
        try:
            if order.get("from_port"):
                channel.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                channel.bind(("", order["from_port"]))
            channel.connect((address, port))
            if not tcp:
                channel.send(b"?")
            return channel.recv(4096).decode().strip() or "closed"
        except OSError as error:
            return type(error).__name__


class Prober:
    def __init__(self):
        self.kept = {}
        self.loads = {}

    def ask(self, order):
        times = order.get("times", 1)
        if times == 1:
            return [ask(order)]
        with ThreadPoolExecutor(min(times, order.get("parallel", 8))) as pool:
            return list(pool.map(lambda _: ask(order), range(times)))

    def matrix(self, order):
        """Many targets at once."""
        with ThreadPoolExecutor(len(order["targets"])) as pool:
            return list(pool.map(ask, order["targets"]))

    def open(self, order):
        """A connection (or a UDP socket with one local port) that stays."""
        address = order["address"]
        tcp = order.get("protocol", "TCP") == "TCP"
        channel = socket.socket(family_of(address), socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
        channel.settimeout(2)
        try:
            channel.connect((address, order["port"]))
            self.kept[order["key"]] = channel
            return channel.recv(4096).decode().strip() if tcp else ""
        except OSError as error:
            return type(error).__name__

    def say(self, order):
        """Over a kept connection; what comes back."""
        channel = self.kept[order["key"]]
        channel.settimeout(order.get("timeout", TIMEOUT))
        try:
            channel.send(b"hello")
            return channel.recv(4096).decode().strip()
        except OSError as error:
            return type(error).__name__

    def close(self, order):
        self.kept.pop(order["key"]).close()

    def load(self, order):
        """Asks again and again in `threads` threads until `loaded` is ordered."""
        load = self.loads[order["key"]] = {"stop": threading.Event(), "answers": Counter(), "errors": []}

        def work():
            while not load["stop"].is_set():
                began = time.time()
                answer = ask(order)
                load["answers"][answer] += 1
                if " " not in answer:
                    load["errors"].append([began, answer])
                time.sleep(order.get("pause", 0.005))

        load["threads"] = [threading.Thread(target=work, daemon=True) for _ in range(order.get("threads", 2))]
        for thread in load["threads"]:
            thread.start()

    def loaded(self, order):
        load = self.loads.pop(order["key"])
        load["stop"].set()
        for thread in load["threads"]:
            thread.join()
        return {"answers": load["answers"], "errors": load["errors"][:20]}

    def dns(self, order):
        """A question in wire form (hexadecimal), by UDP or TCP; the answer, likewise."""
        query, address = bytes.fromhex(order["query"]), (order["address"], order.get("port", 53))
        try:
            if order.get("tcp"):
                with socket.create_connection(address, 5) as channel:
                    channel.sendall(len(query).to_bytes(2, "big") + query)
                    file = channel.makefile("rb")
                    return file.read(int.from_bytes(file.read(2), "big")).hex()
            with socket.socket(family_of(address[0]), socket.SOCK_DGRAM) as channel:
                channel.settimeout(5)
                channel.sendto(query, address)
                return channel.recv(65535).hex()
        except OSError as error:
            return type(error).__name__

    def offer(self, order):
        """Takes orders at a port too, whose number is the answer: of one connection, a line each."""
        listener = socket.create_server(("", 0))

        def work():
            connection, _ = listener.accept()
            with listener, connection, connection.makefile("rw") as file:
                for line in file:
                    order = json.loads(line)
                    file.write(json.dumps(getattr(self, order["op"])(order)) + "\n")
                    file.flush()

        threading.Thread(target=work, daemon=True).start()
        return listener.getsockname()[1]

    def resolve(self, order):
        """As a program does: through resolv.conf and its search list."""
        try:
            return sorted({found[4][0] for found in socket.getaddrinfo(order["name"], None)})
        except OSError as error:
            return [type(error).__name__]

    def run(self, order):
        """A shell command's output."""
        return os.popen(order["command"]).read()

    def send_big(self, order):
        """How many of `size` bytes come back over one connection."""
        with socket.create_connection((order["address"], order["port"]), 5) as channel:
            channel.settimeout(10)
            file = channel.makefile("rb")
            file.readline()
            threading.Thread(target=channel.sendall, args=(b"x" * order["size"],), daemon=True).start()
            return len(file.read(order["size"]))


def probe():
    prober, speak = Prober(), threading.Lock()

    def obey(line):
        order = json.loads(line)
        try:
            result = {"id": order["id"], "result": getattr(prober, order["op"])(order)}
        except Exception as error:
            result = {"id": order["id"], "error": repr(error)}
        with speak:
            sys.stdout.write(json.dumps(result) + "\n")
            sys.stdout.flush()

    for line in sys.stdin:
        threading.Thread(target=obey, args=(line,), daemon=True).start()


if sys.argv[1] == "serve":
    serve(sys.argv[2], *([int(p) for p in ports.split(",") if p] for ports in sys.argv[3:5]))
else:
    probe()
