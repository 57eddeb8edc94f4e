"""Every timeout, window and cap, each with its reason. In seconds and bytes unless it says so.

What a user may change has a key in the configuration; the number here is then its default.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# --- Connecting: strangers, handshake, what a client may ask for ------------------------------

#: TLS, authentication and configuration together (server). A healthy client needs four round
#: trips; 10 s carries 2 s of round trip and a lost segment.
HANDSHAKE_TIMEOUT: Final = 10.0
#: Name, TCP, TLS and handshake together (client).
CONNECT_TIMEOUT: Final = 10.0
#: Connections that have not proved anything yet; each may hold a TLS state for the time above.
MAX_STRANGERS: Final = 1024
#: Of the tokens per second that a server gives to new connections, the part for one source network.
NETWORK_SHARE: Final = 0.25
#: Source networks that are remembered, for their rate and for failed proofs. Some 300 bytes each.
MAX_NETWORKS: Final = 4096
#: Failed proofs that a network may make before it is refused for a while: keys get mistyped.
FREE_FAILURES: Final = 3
#: How long it is refused at first; each further failure doubles that, up to the last. A client that
#: the server tells to wait does so for up to `MAX_RETRY_AFTER`, so that it comes when it may.
PENALTY_FIRST: Final = 2.0
PENALTY_LAST: Final = 60.0
#: Half of the failures are forgotten after it. Trying keys all day gets one try a minute.
FAILURES_HALF_LIFE: Final = 300.0
#: A network with a client that has proved itself is not refused for the failures of others in it,
#: for so long after that client was last connected.
TRUST_LIFETIME: Final = 600.0
#: A frame from a peer that has proved nothing. The largest honest one (2a) is under 1 KiB.
MAX_FRAME_BEFORE_AUTHENTICATION: Final = 4 * KIB
#: A frame from a peer that has. The largest honest one is a `configure` with everything that the
#: bounds below allow, in names of 64 Chinese characters: 440 KiB. (A `configured` that rejects 256
#: proxies with texts of 200 characters of four bytes each has 220 KiB.)
MAX_FRAME_AFTER_AUTHENTICATION: Final = 512 * KIB
#: How much a refusing side reads and drops, so that its refusal is not overtaken by a reset:
#: a close with unread bytes in the kernel sends RST, which discards what was sent before it.
REFUSAL_DRAIN_BYTES: Final = 64 * KIB
REFUSAL_DRAIN_TIMEOUT: Final = 2.0
#: How often a server polls whether its certificate's files have changed: two system calls.
CERTIFICATE_POLL_INTERVAL: Final = 5.0
#: Before a certificate runs out it is in the log this long, once in so many seconds. Two weeks:
#: automatic renewal is 30 days ahead, so that it has failed for a while, and a person has time.
CERTIFICATE_WARNING: Final = 14 * 86_400.0
CERTIFICATE_REMINDER: Final = 86_400.0
#: How often a program that watches its configuration polls it; the file must be the same twice.
CONFIGURATION_POLL_INTERVAL: Final = 1.0
#: A program that is asked to reload derives keys first, a tenth of a second for each.
CONTROL_TIMEOUT: Final = 60.0
#: The longest a client lets a server tell it to wait; a stranger could be that server.
MAX_RETRY_AFTER: Final = 60.0
#: Characters of a refusal's text; a client shows it before it knows that the server wrote it.
MAX_REFUSAL_TEXT: Final = 200
#: Names are labels in logs, tables and metrics.
MAX_NAME_LENGTH: Final = 64
#: A client with more would not fit a configure frame, nor a screen.
MAX_PROXIES: Final = 256
#: Networks that may visit one proxy; and all proxies of a client together, for they travel in one
#: frame.
MAX_ALLOW_FROM: Final = 64
MAX_ALLOW_FROM_TOGETHER: Final = 2048
#: The longest way to write a network: eight groups, the last two as an IPv4 address, "/128".
MAX_NETWORK_LENGTH: Final = 49
#: Clients that may visit one proxy; and all proxies of a client together, for the same reason.
MAX_ALLOW_VISITORS: Final = 64
MAX_ALLOW_VISITORS_TOGETHER: Final = 512
#: Proxies of others that one client visits. As many as it may publish.
MAX_VISITORS: Final = 256
#: A key that a person made up must have at least this many characters.
MIN_AUTH_KEY_LENGTH: Final = 16
#: A join string has some 140 characters, and 525 with the longest name; what is more is not read.
MAX_JOIN_FILE: Final = 4 * KIB

# --- Configuration --------------------------------------------------------------------------

#: Where a server listens for its clients unless told otherwise.
SERVER_PORT: Final = 8443
#: The times that a key may ask for. Less than a millisecond would be a busy loop, more than a day
#: is a slip of the unit.
MIN_DURATION: Final = 0.001
MAX_DURATION: Final = 86_400.0
#: A visitor's connection is held all the while.
MAX_LOCAL_CONNECT_RETRIES: Final = 1000

# --- Links: keepalive, reconnecting, takeover, stopping -------------------------------------

#: Silence before a ping, and silence after it before the link is dead: a vanished peer is
#: noticed within 10 s, and a link of 2 s round trip with a full queue is not.
KEEPALIVE_INTERVAL: Final = 5.0
KEEPALIVE_TIMEOUT: Final = 5.0
#: From a lost connection to the next attempt, as in tls-tunnel 1.5.
RECONNECT_DELAY: Final = 5.0
#: A server that said that it stops is most likely being restarted, and is asked again soon: a
#: random time between these, so that its clients come back within two seconds and not at once.
RESTART_DELAY_SHORTEST: Final = 0.5
RESTART_DELAY_LONGEST: Final = 1.5
#: A server that is away for longer was stopped for good, and the usual delay holds.
RESTART_PATIENCE: Final = 60.0
#: How often a task that waits for longer looks whether the machine was suspended.
SUSPEND_POLL_INTERVAL: Final = 1.0
#: A clock that is ahead by this much shows that it was; less may be a late turn of the loop.
SUSPEND_SHORTEST: Final = 1.0
#: TCP keepalive towards visitors and local services: silence before the first probe, time between
#: probes, probes without an answer. One that vanished is reset after two minutes, where the
#: system's own settings take hours.
TCP_KEEPALIVE_IDLE: Final = 60
TCP_KEEPALIVE_INTERVAL: Final = 15
TCP_KEEPALIVE_COUNT: Final = 4
#: How often the service manager's status line is brought up to date.
STATUS_INTERVAL: Final = 5.0
#: The service manager takes a datagram at once; should it hang, the program must not.
NOTIFY_TIMEOUT: Final = 1.0
#: A session that lasted this long was a good one: back-off starts anew after it.
STABLE_SESSION: Final = 30.0
LOCAL_CONNECT_RETRIES: Final = 3
LOCAL_RETRY_DELAY: Final = 1.0
#: One attempt to reach a local service; a packet filter that drops would hold it for minutes.
LOCAL_CONNECT_TIMEOUT: Final = 10.0
#: A busy port that a foreign process holds is tried again after 2 s, doubling to 60 s.
BIND_RETRY_FIRST: Final = 2.0
BIND_RETRY_LAST: Final = 60.0
#: The ports that systems pick from when they are asked for any (RFC 6335; Linux starts lower).
FIRST_EPHEMERAL: Final = 32_768
LAST_EPHEMERAL: Final = 65_535
#: How many of the allowed ports are tried for a client that leaves the choice to the server.
MAX_CANDIDATE_PORTS: Final = 150
#: How often the system is asked for another port if one that is free on IPv4 is taken on IPv6.
MAX_FAMILY_TRIES: Final = 10
#: How long a server that stops lets live connections finish.
SHUTDOWN_GRACE: Final = 10.0
#: close_notify and the last frames; a peer that does not read must not hold up the end.
GOODBYE: Final = 1.0
#: How long a session whose client connects anew has to show a sign of life: 4 round trips, at least
#: long enough for one lost segment, at most so long that the new connection does not give up.
PROBE_SHORTEST: Final = 2.0
PROBE_LONGEST: Final = 5.0
#: How long the new connection then waits for the old session to end. Cancelling is immediate; this
#: bounds only what a bug could do.
TAKEOVER_TIMEOUT: Final = 5.0

#: How long an ASGI application may take to start, and to stop.
ASGI_LIFESPAN: Final = 30.0
#: How long leaving a publication waits for the server to say that its port is free.
WITHDRAWAL: Final = 5.0

#: How long a visitor through another client waits for the owner to take another stream.
VISIT_TIMEOUT: Final = 10.0
#: How long such a visitor waits for the owner's proof. More than the server may take to reach it.
VISIT_PROOF_TIMEOUT: Final = 15.0
#: A proxy with a secret replaces its nonce after so many proofs, and remembers three times as many
#: at most: 6 MB, and more visitors than can come before their clients have heard of the next one.
VISIT_PROOFS: Final = 16_384

# --- One-line commands ----------------------------------------------------------------------

#: How often the screen of a running command is drawn.
SCREEN_INTERVAL: Final = 0.5
#: How long a measurement waits until the server lets its own service be visited.
BENCH_TIMEOUT: Final = 10.0
#: Of the time of a measurement, what round trips get; each direction gets half of the rest.
BENCH_ROUND_TRIPS: Final = 0.2
#: The part of each direction that does not count: TCP and windows grow meanwhile.
BENCH_WARM_UP: Final = 0.25

# --- Visitors -------------------------------------------------------------------------------

#: Live connections of one proxy. More than any one service takes, less than a server's descriptors.
PROXY_CONNECTIONS: Final = 16_384
#: Live connections of one source network (IPv4 address, IPv6 /64) on all proxies together: enough
#: for a reverse proxy or an office behind one address, and no single network takes every place.
VISITOR_CONNECTIONS: Final = 4096
#: Log lines about what was turned away: so many of a kind at once, then one in so many seconds,
#: which says how many were left out.
REFUSAL_LOG_BURST: Final = 20
REFUSAL_LOG_INTERVAL: Final = 1.0
#: A local service that fails for every second visitor is a line in so many seconds, not every time.
LOCAL_FAILURE_LOG_INTERVAL: Final = 10.0

# --- Yamux ----------------------------------------------------------------------------------

#: Both ends of every Yamux start with this credit for each stream; the protocol fixes it.
INITIAL_WINDOW: Final = 256 * KIB
#: A send window beyond this cannot be written down on the wire; a peer that grants it is wrong.
MAX_WINDOW: Final = 2**32 - 1
#: Stream numbers are 32 bits and never used twice; a session that has used all needs a new one.
MAX_STREAM_ID: Final = 2**32 - 1
#: Towards a foreign Yamux: header and payload make one TLS record.
FOREIGN_FRAME: Final = 16 * KIB - 12
#: Between our own ends: fewer frames, so fewer system calls at the other end (measured: 16 KiB
#: costs a quarter of the bulk throughput of 64 KiB; 256 KiB saves a tenth of the CPU time of that).
#: On a slow link frames are no longer than its batch.
OWN_FRAME: Final = 256 * KIB
#: How far a stream's receive window may grow: 16 MiB is 1 Gbit/s over 130 ms.
MAX_STREAM_WINDOW: Final = 16 * MIB
#: What all streams of a session together may have beyond their first 256 KiB.
WINDOW_POOL: Final = 64 * MIB
#: Towards a foreign Yamux: rust-yamux ends the session at the 513th stream.
FOREIGN_INBOUND_STREAMS: Final = 256
FOREIGN_OUTBOUND_STREAMS: Final = 250
#: Between our own ends: one stream a visitor; the descriptor limit comes first.
OWN_STREAMS: Final = 65_536
#: Streams opened and not yet acknowledged; hashicorp resets the 257th.
FOREIGN_BACKLOG: Final = 256
OWN_BACKLOG: Final = 65_536
#: Pongs that may wait to be sent; more is a flood (an honest peer has one ping under way).
MAX_PENDING_PONGS: Final = 32
#: Streams refused whose RST still waits to be sent; a peer that goes on opening is flooding.
MAX_PENDING_REFUSALS: Final = 256
#: A measured round trip is good for this long; window growth asks for a new one after it.
RTT_VALIDITY: Final = 5.0
#: Frames per second that carry nothing (unknown stream, empty, repeated). An honest peer sends a
#: few after a reset.
USELESS_FRAMES_PER_SECOND: Final = 10_000
#: A stream whose local end is gone is reset if the peer has not ended it by then.
#: (hashicorp/yamux waits five minutes, and its peers stall meanwhile.)
CLOSE_LINGER: Final = 60.0

# --- The data path --------------------------------------------------------------------------

#: Plaintext handed to TLS in one go, and unsent bytes that the kernel may hold of a link, until it
#: is known how fast the link is. What waits there cannot be overtaken (by a ping, by a keystroke).
BATCH: Final = 256 * KIB
#: From then on both are what the link carries in this time, between these two sizes.
BATCH_TIME: Final = 0.004
MIN_BATCH: Final = 16 * KIB
MAX_BATCH: Final = MIB
#: How often the kernel is asked how fast the link is, while it is busy.
PACE_INTERVAL: Final = 0.02
#: One read from a visitor's or local service's socket, by a task of its own.
READ_CHUNK: Final = 64 * KIB
#: The same by the hub, into a buffer that is used again. (Fresh ones of this size cost more, in
#: pages that the allocator gives back and takes again, than they save.)
HUB_CHUNK: Final = 256 * KIB
#: That buffer. When what is left of it is less than a chunk, what was read is sent first.
HUB_BUFFER: Final = 512 * KIB
#: Ciphertext taken from the kernel in one go, into a buffer that all links of a process share.
TLS_CHUNK: Final = 256 * KIB
#: Bytes given to OpenSSL at a time. Its buffers keep the largest size that they ever had, so this
#: is what a link weighs after its first transfer: 256 KiB slices leave half a MiB of them, and
#: these cost two percent of throughput.
TLS_SLICE: Final = 32 * KIB
#: Shorter pieces of a batch are joined before they are encrypted; copying longer ones costs more
#: than a TLS record of their own.
TLS_JOIN: Final = 4 * KIB
#: Bytes of one stream that wait for the link: enough that the next batch never waits for a read.
STREAM_QUEUE: Final = 256 * KIB
#: Bytes of all streams of one link that wait for the link; beyond it no socket is read.
LINK_QUEUE: Final = 4 * MIB
#: Connections accepted before others get a turn.
ACCEPT_BURST: Final = 64
#: Sockets served before what they said is sent. With more, the other side would have nothing to do
#: meanwhile, and then all at once (with 64 busy connections: an eighth fewer requests a second).
POLL_BURST: Final = 32
#: The kernel's queue of connections not yet accepted (it caps this at net.core.somaxconn).
LISTEN_BACKLOG: Final = 1024
#: How often a link looks at the clock at least, whatever it was told.
TIMER_TICK: Final = 5.0
#: A PROXY protocol header that we read; ours are under 100 bytes.
MAX_PREAMBLE: Final = KIB
#: How long accepting pauses when the process has no descriptor left.
ACCEPT_PAUSE: Final = 0.1
#: How often that is logged. At the limit, every visitor that leaves ends a shortage and the next
#: begins another.
SHORTAGE_REMINDER: Final = 60.0

# --- top and the audit log --------------------------------------------------------------------

#: How long `top` waits for an answer before it says that there is none.
TOP_TIMEOUT: Final = 5.0
#: An answer that it reads: thousands of proxies are less.
TOP_ANSWER: Final = 16 * MIB
#: Of each list in an answer it looks at so many, and it remembers so many rates.
TOP_ROWS: Final = 4096
TOP_HISTORY: Final = 240
#: Records of the audit log that wait for the disk; what comes when there are so many is lost, and
#: counted. Half a kilobyte each.
AUDIT_QUEUE: Final = 16_384
#: From one writing of records to the next, if there are any: how late a reader is, and what a
#: process that is killed loses at most.
AUDIT_INTERVAL: Final = 0.1
#: How long the end of a program waits for a disk that does not take the last of them.
AUDIT_FLUSH_TIMEOUT: Final = 5.0

# --- Statistics over HTTP ---------------------------------------------------------------------

#: Connections to the statistics' port; of more, the oldest is closed. A browser has six.
HTTP_CONNECTIONS: Final = 64
#: How long one of them may be silent between two requests, or not read its answer.
HTTP_IDLE_TIMEOUT: Final = 10.0
#: How often the event loop's lag is measured.
LAG_INTERVAL: Final = 1.0
#: How often the round trip of each session is counted; measured ones are good for so long.
RTT_INTERVAL: Final = 5.0
#: The last so many events are kept.
MAX_EVENTS: Final = 500
#: The longest text in one of them.
MAX_EVENT_TEXT: Final = 200
#: Connections that are shown one by one.
SHOWN_CONNECTIONS: Final = 200
#: Looking at ten thousand connections takes some ten milliseconds: not more often than this.
CONNECTIONS_INTERVAL: Final = 1.0
#: Proxies with metrics of their own, some seven series each; the others have their sum.
METRIC_PROXIES: Final = 1000
#: A token that a person made up must have at least this many characters.
MIN_TOKEN_LENGTH: Final = 16

# --- In tests of other programs ---------------------------------------------------------------

#: Silence before a ping and after it, in real time, where the usual ones would make a test wait for
#: ten seconds. A machine on which everything stands still for longer makes tests fail anyway.
TEST_KEEPALIVE: Final = 1.0
#: After a lost link; long enough for a test to see what becomes of visitors meanwhile.
TEST_RECONNECT_DELAY: Final = 0.1
#: Pieces that are under way through a fault in one direction, of 64 KiB at most. The engine's own
#: windows let less be under way.
FAULT_QUEUE: Final = 4096
#: How long a test of threads waits for what it asked the tunnel's thread.
TEST_TIMEOUT: Final = 30.0
