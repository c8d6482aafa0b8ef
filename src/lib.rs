//! Unix `SOCK_SEQPACKET` sockets for [tokio](https://docs.rs/tokio).
//!
//! Seqpacket sockets are connection oriented, keep the order of messages and their boundaries, and
//! carry file descriptors and credentials beside the bytes: see `unix(7)`. A drop-in replacement
//! for `tokio-seqpacket` 0.8, with owned buffers and a choice of backends behind the same API.
//!
//! ```no_run
//! # async fn f() -> Result<(), Box<dyn std::error::Error>> {
//! use tokio_seqpacket::UnixSeqpacket;
//!
//! let socket = UnixSeqpacket::connect("/run/foo.sock").await?;
//! socket.send(b"Hello!").await?;
//!
//! let mut buffer = [0u8; 128];
//! let len = socket.recv(&mut buffer).await?;
//! println!("{}", String::from_utf8_lossy(&buffer[..len]));
//! # Ok(())
//! # }
//! ```
//!
//! [`UnixSeqpacketListener`] accepts connections, [`UnixSeqpacket::connect`] makes one,
//! [`UnixSeqpacket::pair`] makes two connected sockets.
//!
//! | what for | where |
//! |---|---|
//! | socket files, who may connect, addresses of clients, refusing descriptors | [`Options`] |
//! | sockets that systemd has opened, and a restart without a gap | [`Activation`], [`guide::containers`](guide::containers#restarts-without-a-gap) |
//! | limits against peers | [`Incoming`], [`Options::max_fds`], [`guide::hostile_peers`] |
//! | accepting where descriptors run out | [`UnixSeqpacketListener::incoming`] |
//! | passing descriptors and credentials | [`ancillary`], [`guide::descriptors`], [`guide::credentials`] |
//! | values through a codec, with descriptors and credentials | [`Framed`], [`codec`] (features `codec`, `serde`, `postcard`), [`guide::descriptors`](guide::descriptors#inside-values) |
//! | payloads larger than a message | [`SealedMemory`] |
//! | many messages, and the end of the stream told from an empty one | [`UnixSeqpacket::messages`], [`UnixSeqpacket::batch`] |
//! | the same as fields of a struct, without lifetimes | [`Messages::new`], [`OwnedSendBatch`] |
//! | what a socket has carried, and what was done for a runtime | [`UnixSeqpacket::counters`], [`metrics()`] |
//!
//! The [`guide`] has chapters on choosing a backend, moving from tokio-seqpacket, coming from byte streams, owned buffers,
//! passing descriptors, credentials, hostile peers, cancel safety, containers and tuning.
//!
//! # Guarantees
//!
//! They hold on both backends, with the same tests. RELIABILITY.md names the tests of each number.
//!
//! - **G1 Delivery.** A send that returns `Ok` was delivered whole, exactly once. Sends on one socket are delivered in
//!   the order of their first polls, also from several tasks and when the peer's queue was full.
//! - **G2 Dropped receive.** Dropping a receive at any point loses nothing. Bytes, truncation flags and file descriptors
//!   reach the next receive of the socket, in order. One exception, for descriptors only: [`Options::keep_ancillary`].
//! - **G3 Dropped send.** The message went out whole or never will. It cannot appear behind a later one.
//! - **G4 Dropped accept.** Dropping an accept loses no connection.
//! - **G5 Truncation.** Calls with capacity for ancillary data that return [`MessageInfo`] report truncated data and
//!   truncated ancillary data separately.
//! - **G6 End of stream.** It can be told from an empty message: always in a stream ([`Messages`]), and by
//!   [`MessageInfo::end_of_stream`] while [`set_pass_credentials`](UnixSeqpacket::set_pass_credentials) is on. Plain
//!   [`recv`](UnixSeqpacket::recv) returns 0 for both.
//! - **G7 Reset.** If the peer closes with unread messages in its queue, one call fails with `ECONNRESET`. Messages that
//!   the peer had sent are still delivered, then the end of the stream.
//! - **G8 Descriptors.** Received descriptors are close-on-exec and owned from the start. Those that no task takes are
//!   closed.
//! - **G9 Sharing.** Any number of tasks may use one socket through `&self`. Waiters are woken first in, first out. A
//!   message goes to the receive that asks first. A future that is alive but not polled, or forgotten, holds no other up.
//! - **G10 Threads and runtimes.** A socket may be used and dropped on any thread. A runtime that is gone, missing or
//!   without I/O driver is an error, never a panic.
//! - **G11 Memory.** The kernel never holds a pointer to memory that was freed or given back, whatever is dropped, leaked
//!   or forgotten. It has pointers during system calls only. If a ring breaks without an answer to an operation, the
//!   memory of that operation is leaked.
//! - **G12 Close.** Dropping a socket closes it at once. While a driver on another thread works for it, that takes some
//!   microseconds longer. `shutdown(2)` is never called for it.
//! - **G13 Bad input.** It is an [`io::Error`](std::io::Error) that names the limit. Nothing is sent, nothing lost.
//!
//! # What it does not do
//!
//! - **No other systems than Linux**, and no other socket types. For bytes without boundaries there is
//!   [`tokio::net::UnixStream`].
//! - **No messages larger than the kernel takes.** The send buffer limits them. [`SealedMemory`] passes more.
//! - **No `AsyncRead` or `AsyncWrite`.** They have no message boundaries. [`Framed`] (feature `codec`) is a stream and a
//!   sink of values.
//! - **No confirmation that the peer has read a message.** G1 ends at the peer's queue.
//! - **No resending or reconnecting**, and no timeouts. Wrap any call in [`tokio::time::timeout`].
//!   Every call may be dropped at any point (G2 to G4).
//! - **No own threads or runtime**, except for threads that close descriptors whose close may take long.
//! - **No use of inherited sockets after `fork(2)`.** Parent and child share tokio's epoll set, see [`guide::backends`].
//!
//! RELIABILITY.md lists the known limits of each guarantee.
//!
//! # Errors that every call can return
//!
//! Creating a socket outside a tokio runtime, or in a runtime without its I/O driver, is an error.
//! A socket belongs to the runtime it was created in. Once that is gone, calls return an error. Both are
//! [`ErrorKind::Other`](std::io::ErrorKind::Other), and the text says which it is.
//!
//! tokio 1.54 has no call to ask for an I/O driver, and panics where one is missing. So the library first looks whether the
//! process has an epoll instance. If there is none, the error comes without a panic. If another runtime has one, the panic is
//! caught: once for each runtime without a driver, the program's panic hook runs. A program built with `panic = "abort"`
//! ends then.
//!
//! Errors of `bind` and `connect` name the address and the cause. The error of the operating system, with its number, is
//! their [`source`](std::error::Error::source).
//!
//! A backend that was asked for and is not available is `Unsupported`, with the reason. A wrong value of one of the
//! environment variables below is `InvalidInput`.
//!
//! # Backends
//!
//! | backend | how operations run | where |
//! |---|---|---|
//! | [`Backend::Uring`] | a system call each, and under load many with one `io_uring_enter(2)` | Linux 6.1 or newer on a 64-bit processor other than s390x, if the process may use io_uring |
//! | [`Backend::Epoll`] | a system call each | everywhere |
//!
//! Operations that have to wait do so on tokio's I/O driver, on both. The choice is io_uring where it is available.
//! [`Options::backend`] overrides it in code. Operators set the environment variable `TOKIO_SEQPACKET_BACKEND` (`auto`, `uring` or
//! `epoll`). [`probe()`] explains in words whether io_uring is available here.
//!
//! On io_uring, [`Submission`] and `TOKIO_SEQPACKET_SUBMISSION` (`adaptive`, `ring` or `direct`) choose whether operations
//! go through the ring. [`metrics()`] counts what was done for a runtime, and [`UnixSeqpacket::counters`]
//! what one socket has carried.
//!
//! # Features
//!
//! None is on by default.
//!
//! | feature | adds |
//! |---|---|
//! | `stream` | [`Incoming`] and [`Messages`] are a `futures_core::Stream` |
//! | `bytes` | `Bytes` and `BytesMut` as owned buffers |
//! | `codec` | [`Framed`], a stream and sink over a codec of tokio-util; implies `bytes` and `stream` |
//! | `serde` | `codec::Passed`, a file descriptor inside a value; implies `codec` |
//! | `postcard` | `codec::Postcard`, a codec of serde values; implies `serde` |
//! | `tracing` | spans and events, see below |
//! | `cli` | the command-line tool `seqpacket` |
//! | `non-portable` | nothing: it is accepted for programs that set it for tokio-seqpacket 0.9 |
//!
//! # Tracing
//!
//! With the feature `tracing`, spans at level debug:
//!
//! | span | fields | from, until |
//! |---|---|---|
//! | `socket` | `backend`, `fd` | the socket is made; it is dropped or its descriptor given away |
//! | `listener` | `backend`, `fd` | likewise |
//! | `accept`, in its listener's | `fd` | a connection was taken; it is a socket |
//!
//! Sockets and listeners have no parent and follow from the span in which they are made. For an accepted
//! socket that is `accept`. Events report what the library does by itself:
//!
//! | level | event |
//! |---|---|
//! | warn | no ring can be made, so a socket runs on epoll; a ring is gone, so system calls are used; connections are not accepted for lack of descriptors or memory |
//! | info | a stale socket file is removed |
//! | debug | a worker changes how it submits; a connection was gone before it was accepted |
//!
//! Messages make no spans and enter none. A span for each call costs about a quarter of the system call of a small
//! message. Put a span around your call where it matters.
//!
//! # Architecture
//!
//! [`UnixSeqpacket`], [`UnixSeqpacketListener`] and the halves are the public API (`net`). Below them `backend` has the
//! calls, the futures and the drivers. `epoll` and `uring` supply how operations wait and how batches run, `common` the
//! queues and the policy. ARCHITECTURE.md has the layers, the path of a message, and the invariants.
//!
// Without the feature there is nothing to link to.
#![cfg_attr(feature = "codec", doc = "[`Framed`]: crate::Framed\n[`codec`]: mod@crate::codec")]
#![cfg_attr(not(feature = "codec"), doc = "[`Framed`]: crate#features\n[`codec`]: crate#features")]
// Set by docs.rs only (Cargo.toml): stable compilers never see the feature.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(target_os = "linux"))]
compile_error!(
    "tokio-seqpacket-uring runs on Linux only (io_uring and epoll); on other systems use tokio-seqpacket"
);

pub mod ancillary;
mod backend;
pub mod buf;
mod common;
mod epoll;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
pub mod guide;
mod net;
mod sys;
mod types;
// Cargo.toml has the same condition for the crate io-uring.
#[cfg_attr(
    not(all(
        target_pointer_width = "64",
        any(
            target_arch = "x86_64",
            target_arch = "aarch64",
            target_arch = "riscv64",
            target_arch = "loongarch64",
            target_arch = "powerpc64"
        )
    )),
    path = "uring/none.rs"
)]
mod uring;
mod util;

pub use backend::{Counters, Metrics, Mode, WorkerMetrics, busy_poll, metrics};
pub use buf::BufResult;
pub use common::message::Message;
#[cfg(feature = "codec")]
pub use net::codec;
#[cfg(feature = "codec")]
pub use net::framed::Framed;
pub use net::listener::UnixSeqpacketListener;
pub use net::listener::activation::Activation;
pub use net::listener::incoming::Incoming;
pub use net::messages::{Messages, MessagesOptions};
pub use net::options::Options;
pub use net::owned_send_batch::OwnedSendBatch;
pub use net::sealed_memory::{MappedMemory, SealedMemory};
pub use net::send_batch::SendBatch;
pub use net::socket::UnixSeqpacket;
pub use net::socket::counters::SocketCounters;
pub use net::socket::split::{ReadHalf, WriteHalf};
pub use net::socket::split_owned::{OwnedReadHalf, OwnedWriteHalf, ReuniteError};
pub use types::backend::{Backend, Selection, Submission};
pub use types::borrow_fd;
pub use types::message_info::MessageInfo;
pub use types::socket_addr::SocketAddr;
pub use types::ucred::UCred;
pub use uring::probe::probe;
pub use uring::support::{Unavailable, UringSupport};

#[doc(no_inline)]
pub use libc::{gid_t, pid_t, uid_t};

/// README's code compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
