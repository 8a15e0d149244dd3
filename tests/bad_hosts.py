"""A server on this machine whose paths misbehave each in a way of its own, for the tests of downloading."""

import re
import struct
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SO_LINGER, SOL_SOCKET


class Host:
    """Serves `plan`: path -> functions of the request, one for each time it is asked, the last one for good."""

    def __init__(self):
        self.plan, self.asked, self.over = {}, [], threading.Event()
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                host.asked.append((self.path, self.headers.get("Range")))
                behaviours = host.plan.get(self.path, [status(404)])
                behave = behaviours.pop(0) if len(behaviours) > 1 else behaviours[0]
                self.over = host.over
                self.start = int((re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")) or [0, 0])[1])
                with suppress(OSError):  # the client left
                    behave(self)

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def serve(self, path, *behaviours):
        """-> the URL of a path that behaves so."""
        self.plan[path] = list(behaviours)
        return self.url + path

    def close(self):
        self.over.set()
        self.server.shutdown()
        self.server.server_close()


def answer(request, code, **headers):
    request.send_response(code)
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), str(value))
    request.end_headers()


def ranged(content, send):
    """Answers as a good host does, but leaves the body to `send(request, the bytes asked for)`."""

    def behave(request):
        rest = content[request.start :]
        place = {"Content_Range": f"bytes {request.start}-{len(content) - 1}/{len(content)}"} if request.start else {}
        answer(request, 206 if place else 200, Content_Length=len(rest), **place)
        send(request, rest)

    return behave


def cut(content, after=None):
    """Ends the connection after so many bytes."""
    return ranged(content, lambda request, rest: request.wfile.write(rest[:after]))


whole = cut


def reset(content, after):
    """Breaks the connection off after so many bytes."""

    def send(request, rest):
        request.wfile.write(rest[:after])
        request.connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        request.connection.close()

    return ranged(content, send)


def stall(content, after):
    """Sends so many bytes, and then nothing."""

    def send(request, rest):
        request.wfile.write(rest[:after])
        request.over.wait(5)

    return ranged(content, send)


def never_answers(request):
    request.over.wait(5)


def body(content, code=200, **headers):
    """Exactly these headers, and this content."""

    def behave(request):
        answer(request, code, **headers)
        request.wfile.write(content)

    return behave


def status(code, **headers):
    return body(b"", code, Content_Length=0, **headers)


def raw(content):
    """Bytes in the place of an HTTP answer."""
    return lambda request: request.wfile.write(content)
