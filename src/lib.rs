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
//! | sockets that systemd has opened | [`Activation`] |
//! | accepting where descriptors run out | [`UnixSeqpacketListener::incoming`] |
//! | passing descriptors and credentials | [`ancillary`], [`guide::descriptors`], [`guide::credentials`] |
//! | values through a codec | `Framed` (feature `codec`) |
//! | payloads larger than a message | [`SealedMemory`] |
//! | many messages, and the end of the stream told from an empty one | [`UnixSeqpacket::messages`], [`UnixSeqpacket::batch`] |
//!
//! The [`guide`] has chapters on choosing a backend, moving from tokio-seqpacket, owned buffers, passing
//! descriptors, credentials, cancel safety, containers and tuning.
//!
//! # What can be relied on
//!
//! On both backends, with the same tests. The numbers are those of RELIABILITY.md.
//!
//! - **G1 Delivery.** A send that returns `Ok` was delivered whole, exactly once. Sends on one socket are delivered
//!   in the order in which they were first polled, also from several tasks and when the peer's
//!   queue was full.
//! - **G2 Dropped receive.** Dropping a receive at any point loses nothing: bytes, and file descriptors, reach the next
//!   receive, in order. One exception, for descriptors only: see [`Options::keep_ancillary`].
//! - **G3 Dropped send.** The message went out whole or never will. It cannot appear behind a later one.
//! - **G4 Dropped accept.** Loses no connection.
//! - **G5 Truncation.** Calls with capacity for ancillary data that return [`MessageInfo`] report truncated data and truncated
//!   ancillary data separately.
//! - **G6 End of stream** and an empty message can be told apart: always in a stream ([`Messages`]), and by
//!   [`MessageInfo::end_of_stream`] while [`set_pass_credentials`](UnixSeqpacket::set_pass_credentials) is on.
//! - **G7 Reset.** If the peer closes with unread messages in its queue, one call fails with `ECONNRESET`. That is
//!   not the end: messages that the peer had sent are still delivered, then end of stream.
//! - **G8 Descriptors** that were received are close-on-exec and owned from the start; those that no task takes are closed.
//! - **G9 Sharing.** Any number of tasks may use one socket through `&self`. Waiters are woken first in, first out. A message
//!   goes to the receive that asks first, and a future that is alive but not polled, or forgotten, holds no other up.
//! - **G10 Threads and runtimes.** A socket may be used and dropped on any thread.
//! - **G11 Memory.** The kernel has pointers to buffers during system calls only, whatever is dropped, leaked or forgotten.
//! - **G12 Close.** Dropping a socket closes it at once; while a driver on another thread works for it, some microseconds
//!   later.
//! - **G13 Bad input** is an error that names the limit; nothing is sent, nothing lost.
//!
//! # Errors that every call can return
//!
//! Creating a socket outside a tokio runtime, or in a runtime without its I/O driver, is an error.
//! A socket belongs to the runtime it was created in; once that is gone, calls return an error. Both are
//! [`ErrorKind::Other`](std::io::ErrorKind::Other), and the text says which it is.
//!
//! A backend that was asked for and cannot be had is `Unsupported`, with the reason. A wrong value of one of the
//! environment variables below is `InvalidInput`.
//!
//! # Backends
//!
//! [`Backend`] says what a socket runs on, [`Options`] chooses in code, and operators choose with
//! the environment variable `TOKIO_SEQPACKET_BACKEND` (`auto`, `uring` or `epoll`). [`probe()`]
//! explains in words whether io_uring can be used here. On io_uring, [`Submission`] and `TOKIO_SEQPACKET_SUBMISSION`
//! (`adaptive`, `ring` or `direct`) say whether operations go through the ring; [`metrics()`] says what was done.
//!
//! # Tracing
//!
//! With the feature `tracing`, at level debug:
//!
//! | span | fields | from, until |
//! |---|---|---|
//! | `socket` | `backend`, `fd` | the socket is made; it is dropped or its descriptor given away |
//! | `listener` | `backend`, `fd` | likewise |
//! | `accept`, in its listener's | `fd` | a connection was taken; it is a socket |
//!
//! Sockets and listeners have no parent and follow from the span in which they are made: for an accepted
//! socket that is `accept`. Events tell what the library does by itself: it falls back to epoll, loses a
//! ring, changes how a worker submits, waits for descriptors, replaces a stale socket file.
//!
//! Messages make no spans and enter none. One for each call would cost 80 ns where a subscriber keeps
//! it and writes nothing, and the system call of a small message takes 300 ns. Put a span around your call
//! where it matters.
//!
//! # Architecture
//!
//! [`UnixSeqpacket`], [`UnixSeqpacketListener`] and the halves are the public API. Below them `backend` has the calls, the
//! futures and the drivers; `epoll` and `uring` supply how operations wait and how batches run; `common` the queues and the policy.
//! ARCHITECTURE.md has the map.

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
mod uring;
mod util;

pub use backend::{Counters, Metrics, Mode, WorkerMetrics, busy_poll, metrics};
pub use common::message::Message;
#[cfg(feature = "codec")]
pub use net::framed::Framed;
pub use net::listener::UnixSeqpacketListener;
pub use net::listener::activation::Activation;
pub use net::listener::incoming::Incoming;
pub use net::messages::{Messages, MessagesOptions};
pub use net::options::Options;
pub use net::sealed_memory::{MappedMemory, SealedMemory};
pub use net::send_batch::SendBatch;
pub use net::socket::UnixSeqpacket;
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
pub use tokio_uring::BufResult;

/// README's code compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
