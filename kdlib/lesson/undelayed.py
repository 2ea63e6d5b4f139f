"""A Jupyter server that passes every message on at once, which a slider's picture would else wait 40 ms for.

The kernel answers a move with several small messages. By default the server's system holds each of them back until
the browser's system has acknowledged the one before (J. Nagle 1984, RFC 896), and the latter puts that off in the
hope of something to send along with it (RFC 1122, 4.2.3.2; on Linux for 40 ms).
"""

from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection


class UndelayedConnection(ZMQChannelsWebsocketConnection):
    """The connection between a kernel and a browser, without delay."""

    def connect(self):
        """Connect, with every message sent at once."""
        self.websocket_handler.set_nodelay(True)
        return super().connect()
