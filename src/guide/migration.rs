//! Moving from tokio-seqpacket.
//!
//! It takes one line in Cargo.toml. The library is called `tokio_seqpacket` here as well, so `use` lines stay. Until the first
//! release the line names a clone of the repository by `path`, or its URL by `git`:
//!
//! ```toml
//! [dependencies]
//! tokio-seqpacket = { package = "tokio-seqpacket-uring", version = "0.1", path = "../tokio-seqpacket-uring" }
//! ```
//!
//! | from | what to expect |
//! |---|---|
//! | 0.8 | compiles as it is, but for [one signature](#from-08) |
//! | 0.9 | receives return a number again, not a `MessageInfo`: [some lines](#from-09) |
//! | 0.3 | compiles as it is without ancillary data; with it, [another vocabulary](#from-03) |
//!
//! Compared item by item with 0.3.1, 0.8.2 and 0.9.1: programs that use every public item of those versions,
//! apart from the rows marked *changed* or *gone*, compile against this crate and run on both backends. 0.4 and
//! 0.5 are as 0.3 where ancillary data is concerned (`SocketAncillary`), 0.6 and 0.7 as 0.8.
//!
//! Every version needs this here: Linux, Rust 1.88, tokio 1.54. The license is MIT or Apache-2.0, not
//! BSD-2-Clause.
//!
//! # From 0.8
//!
//! | item | here |
//! |---|---|
//! | `UnixSeqpacket`: `connect`, `pair`, `from_raw_fd`, `as_raw_fd`, `into_raw_fd`, `as_async_fd`, `peer_cred`, `take_error`, `shutdown` | same |
//! | `send`, `send_vectored`, `send_vectored_with_ancillary` and their `poll_*` | same |
//! | `recv`, `recv_vectored`, `recv_vectored_with_ancillary` and their `poll_*` | same |
//! | `UnixSeqpacketListener`, all of it | same; `accept` and `poll_accept` take `&self`, so the compiler warns of a `mut` that only they needed |
//! | `UCred`, `borrow_fd::BorrowFd` | same, and more |
//! | `ancillary`: writer, reader, iterators, enums and their variants | same, and more |
//! | `AsFd`, `AsRawFd`, `IntoRawFd`, `TryFrom<OwnedFd>`, `Into<OwnedFd>`, `Debug`, `Send`, `Sync`, `Unpin` | same; `Debug` shows the backend, too |
//! | `split() -> (&Self, &Self)`; `ReadHalf<'a>`, `WriteHalf<'a>` as aliases of `&'a UnixSeqpacket` (deprecated) | *changed*: structs that dereference to the socket, as in 0.3. Calls compile; `let (r, w): (&UnixSeqpacket, &UnixSeqpacket) = socket.split()` does not. Write `(&socket, &socket)`. |
//!
//! ## What behaves differently from 0.8
//!
//! | | 0.8 | here |
//! |---|---|---|
//! | `connect` while the backlog is full | returns a socket that is not connected | waits until it is, or is refused |
//! | several tasks send on one socket | in no order once the queue was full | in the order of their first poll |
//! | no runtime, or one without its I/O driver | panics | an error |
//! | a message that is too long | `EMSGSIZE` | `InvalidInput`, which names the limit; `raw_os_error()` is `None` |
//! | more than 253 descriptors | `EINVAL` | `InvalidInput`, which names the limit; `raw_os_error()` is `None` |
//! | paths | up to 107 bytes; an empty one is the empty abstract name, a NUL byte inside ends the path | up to 4095 bytes (over 108 through `/proc`); an empty path, and one with a NUL byte inside, are `InvalidInput` |
//! | a failed `bind` or `connect` | the error of the system call | the same kind, with a text; the error of the system call, with its number, is its `source()` |
//! | `from_raw_fd`, `TryFrom<OwnedFd>` | do not check what the descriptor is, and leave it blocking if it is | check that it is a connected (or listening) Unix seqpacket socket, and make it non-blocking |
//! | a task whose socket is always ready | keeps the thread | yields now and then (tokio's cooperative budget) |
//! | `as_async_fd` | the socket itself | a duplicate, registered when it is first asked for; see [backends](super::backends) |
//! | system calls of your own on the descriptor | exact | on io_uring, exact while no receive waits or was dropped unfinished |
//! | `into_raw_fd` after a receive that was dropped | loses nothing | on io_uring it can lose a message that the dropped receive has left: [`try_into_fd`] refuses then |
//!
//! [`try_into_fd`]: crate::UnixSeqpacket::try_into_fd
//!
//! # From 0.9
//!
//! As from 0.8, and:
//!
//! | item of 0.9 | here |
//! |---|---|
//! | `recv`, `recv_vectored`, `poll_recv`, `poll_recv_vectored` `-> MessageInfo` | *changed*: `-> usize`. Drop `.bytes_read()`. For the rest of a `MessageInfo`: `recv_message` |
//! | `recv_with_ancillary`, `recv_vectored_with_ancillary`, `poll_recv_vectored_with_ancillary` `-> (MessageInfo, reader)` | *changed*: `-> (usize, reader)`; ask `reader.is_truncated()` before `into_messages()` takes the reader; `recv_message` returns both |
//! | `poll_recv_with_ancillary` `-> (MessageInfo, reader)` | *changed*: `-> (usize, reader)` |
//! | `send_with_ancillary`, `poll_send_with_ancillary` | same |
//! | `peek`, `peek_vectored`, `poll_peek`, `poll_peek_vectored` | same; `message_len()` is the whole length |
//! | `peek_with_ancillary` and its forms (feature `non-portable`) | *gone*: peeking at descriptors duplicates them each time |
//! | `AncillaryMessageWriter::add_fds(impl IntoIterator)` | *changed*: a slice, as in 0.8; [`add_fds_iter`] takes what 0.9's does |
//! | `add_ucreds(impl IntoIterator)` | *changed*: a slice. `add_ucreds(&[cred])` compiles with both |
//! | `MessageInfo`: `bytes_read`, `truncated`, `ancillary_truncated` | same, and `message_len`, `end_of_stream`; it is `Copy` |
//! | `connect_blocking` | same, but it needs a runtime around it, as 0.9's does, and says so in an error |
//! | `UCred::new`, `from_current_process`, `set_*`; `uid_t`, `gid_t`, `pid_t` | same |
//! | feature `non-portable` | accepted, and empty: credentials need no feature |
//! | feature `doc-cfg` | *gone* |
//!
//! [`add_fds_iter`]: crate::ancillary::AncillaryMessageWriter::add_fds_iter
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use tokio_seqpacket::UnixSeqpacket;
//! use tokio_seqpacket::ancillary::AncillaryMessageWriter;
//!
//! # let (a, b) = UnixSeqpacket::pair()?;
//! let file = std::fs::File::open("/dev/null")?;
//! let mut control = [0; 64];
//! let mut writer = AncillaryMessageWriter::new(&mut control);
//! writer.add_fds_iter([&file])?; // 0.9: add_fds([&file])
//! a.send_with_ancillary(b"message", &mut writer).await?;
//!
//! let mut buffer = [0; 128];
//! let len = b.recv(&mut buffer).await?; // 0.9: b.recv(&mut buffer).await?.bytes_read()
//! assert_eq!(&buffer[..len], b"message");
//! # Ok(()) }
//! ```
//!
//! # From 0.3
//!
//! | item of 0.3 | here |
//! |---|---|
//! | `send`, `recv`, `send_vectored`, `recv_vectored` and their `poll_*`, through `&mut` | same, through `&self` |
//! | `connect`, `pair`, `peer_cred`, `take_error`, `shutdown` | same |
//! | `split()`, `ReadHalf`, `WriteHalf` | same, through `&self`; the halves dereference to the socket |
//! | `ReadHalf::shutdown()`, `WriteHalf::shutdown()` | *changed*: the socket's, which takes `Shutdown::Read` or `Shutdown::Write` |
//! | `local_addr`, `peer_addr` of a socket or half `-> std::os::unix::net::SocketAddr` | *changed*: `-> tokio_seqpacket::SocketAddr`, with the same `is_unnamed` and `as_pathname`; `try_into()` gives std's |
//! | `UnixSeqpacketListener::bind`, `bind_with_backlog`, `take_error` | same |
//! | `accept`, `poll_accept` `-> (UnixSeqpacket, SocketAddr)` | *changed*: the socket alone; its `peer_addr()` is the address |
//! | `UnixSeqpacketListener::local_addr -> SocketAddr` | *changed*: `-> PathBuf`; `local_socket_addr()` is the address |
//! | `UCred` | same; `pid()` is `None` instead of `Some(0)` where the kernel does not report it |
//! | `SocketAncillary` to send: `add_fds(&[RawFd]) -> bool`, `add_creds(&[SocketCred]) -> bool` | *changed*: `AncillaryMessageWriter`, `add_fds(&[impl BorrowFd])`, `add_ucreds(&[UCred])`, which return a `Result` |
//! | `SocketAncillary` to receive: `messages()`, `truncated()` | *changed*: a byte array goes in, an `AncillaryMessageReader` comes back: `into_messages()`, `is_truncated()` |
//! | `AncillaryData::ScmRights` of `RawFd` | *changed*: `OwnedAncillaryMessage::FileDescriptors` of `OwnedFd`. Those that are not taken are closed; in 0.3 they stayed open. |
//! | `AncillaryData::ScmCredentials` of `SocketCred` | *changed*: `Credentials` of `UCred` |
//! | `AncillaryError::Unknown` | *changed*: `Other`, with level, type and bytes |
//! | tokio 0.3 | *changed*: tokio 1 |
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use std::io::{IoSlice, IoSliceMut};
//! use tokio_seqpacket::UnixSeqpacket;
//! use tokio_seqpacket::ancillary::{AncillaryMessageWriter, OwnedAncillaryMessage};
//!
//! # let (a, b) = UnixSeqpacket::pair()?;
//! let file = std::fs::File::open("/dev/null")?;
//! // 0.3: let mut ancillary = SocketAncillary::new(&mut control);
//! //      ancillary.add_fds(&[file.as_raw_fd()]);
//! let mut control = [0; 64];
//! let mut ancillary = AncillaryMessageWriter::new(&mut control);
//! ancillary.add_fds(&[&file])?;
//! a.send_vectored_with_ancillary(&[IoSlice::new(b"a file")], &mut ancillary).await?;
//!
//! // 0.3: let mut ancillary = SocketAncillary::new(&mut control);
//! //      b.recv_vectored_with_ancillary(&mut buffers, &mut ancillary).await?;
//! //      for message in ancillary.messages() { if let Ok(AncillaryData::ScmRights(fds)) = message { ... } }
//! let (mut bytes, mut control) = ([0; 64], [0; 64]);
//! let mut buffers = [IoSliceMut::new(&mut bytes)];
//! let (_len, ancillary) = b.recv_vectored_with_ancillary(&mut buffers, &mut control).await?;
//! for message in ancillary.into_messages() {
//!     if let OwnedAncillaryMessage::FileDescriptors(fds) = message {
//!         for fd in fds {
//!             let _file = std::fs::File::from(fd);
//!         }
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! # Both in one program
//!
//! The types of the two crates are different types. Where a dependency takes or returns tokio-seqpacket's sockets, let it use
//! this crate as well, by a package of that name. Its `lib.rs` is `pub use tokio_seqpacket_uring::*;`, and its Cargo.toml:
//!
//! ```toml
//! [package]
//! name = "tokio-seqpacket"
//! version = "0.8.2" # what the dependency asks for
//! edition = "2024"
//!
//! [dependencies]
//! # With underscores, or the library is `tokio_seqpacket` here.
//! tokio_seqpacket_uring = { package = "tokio-seqpacket-uring", version = "0.1", path = "../tokio-seqpacket-uring" }
//! ```
//!
//! In the program's own Cargo.toml:
//!
//! ```toml
//! [patch.crates-io]
//! tokio-seqpacket = { path = "wrapper" }
//! ```
//!
//! Or pass the descriptor: `OwnedFd::from(socket)` on one side, `try_from` on the other.
