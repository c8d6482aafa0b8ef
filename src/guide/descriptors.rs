//! Passing file descriptors.
//!
//! A message can carry up to 253 file descriptors (`SCM_RIGHTS`, see `unix(7)`). The receiver gets
//! duplicates: raw fds of its own for the same open files. The sender's descriptors stay open and belong to the sender.
//! They may be closed once a send has returned.
//!
//! # As values
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use std::fs::File;
//! use std::io::Read;
//! use tokio_seqpacket::UnixSeqpacket;
//! use tokio_seqpacket::ancillary::AncillaryBuffer;
//!
//! let (a, b) = UnixSeqpacket::pair()?;
//! let mut ancillary = AncillaryBuffer::new();
//! ancillary.push_fd(File::open("/proc/self/comm")?)?;
//! let (sent, _, _) = a.send_owned_with_ancillary("a file", ancillary).await;
//! sent?;
//!
//! let (received, bytes, mut ancillary) =
//!     b.recv_owned_with_ancillary(Vec::with_capacity(64), AncillaryBuffer::new()).await;
//! assert!(!received?.ancillary_truncated());
//! assert_eq!(bytes, b"a file");
//! let mut text = String::new();
//! File::from(ancillary.take_fds().remove(0)).read_to_string(&mut text)?;
//! assert!(!text.is_empty());
//! # Ok(()) }
//! ```
//!
//! There is always capacity for what comes: 253 descriptors, credentials and a pidfd. Fewer descriptors come where the
//! socket has a limit: see [`max_fds`](crate::Options::max_fds).
//!
//! # Inside values
//!
//! [`codec::Passed`] is a descriptor inside a value of serde (feature `serde`), in any format. With [`codec::Postcard`] (feature
//! `postcard`) a [`Framed`] sends and receives such values:
//!
//! ```
//! # #[cfg(feature = "postcard")]
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use std::fs::File;
//! use futures_util::{SinkExt, StreamExt};
//! use serde::{Deserialize, Serialize};
//! use tokio_seqpacket::codec::{Passed, Postcard};
//! use tokio_seqpacket::{Framed, UnixSeqpacket};
//!
//! #[derive(Serialize, Deserialize)]
//! enum Request { Open(String) }
//! #[derive(Serialize, Deserialize)]
//! enum Reply { Opened { file: Passed<File> }, Failed(String) }
//!
//! let (client, server) = UnixSeqpacket::pair()?;
//! let mut client = Framed::new(client, Postcard::<Request, Reply>::new()).max_fds(1);
//! let mut server = Framed::new(server, Postcard::<Reply, Request>::new()).max_fds(1);
//! client.send(Request::Open("/proc/self/comm".into())).await?;
//!
//! let Request::Open(path) = server.next().await.expect("a request")?;
//! let reply = match File::open(path) {
//!     Ok(file) => Reply::Opened { file: Passed(file) },
//!     Err(error) => Reply::Failed(error.to_string()),
//! };
//! server.send(reply).await?;
//! match client.next().await.expect("a reply")? {
//!     Reply::Opened { file: Passed(file) } => assert!(file.metadata()?.is_file()),
//!     Reply::Failed(why) => panic!("{why}"),
//! }
//! # Ok(()) }
//! # #[cfg(not(feature = "postcard"))] fn main() {}
//! ```
//!
//! - Every descriptor of a message has to be named by its value, once. Otherwise the value is an error, and all are closed.
//! - `Framed::max_fds` limits both directions. Without it no value has descriptors.
//! - The type in `Passed` checks what came: `Passed<UnixSeqpacket>` refuses what is no connected seqpacket socket, and
//!   `Passed<SealedMemory>` memory that can change.
//! - [`codec::WithFds`] and [`codec::WithCredentials`] add the descriptors or the sender's credentials to the items of any
//!   codec. `codec::encode_with_fds` and `codec::decode_with_fds` serve calls without `Framed`.
//!
//! # In byte arrays
//!
//! The calls of tokio-seqpacket, which allocate nothing. The array has to be large enough: 16 bytes for the
//! header, 4 for each descriptor, rounded up to 8. Credentials take 32 more, a pidfd 24. To send, add 7: the writer
//! begins at a multiple of 8 ([`BUFFER_ALIGN`](crate::ancillary::AncillaryMessageWriter::BUFFER_ALIGN)).
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use std::fs::File;
//! use tokio_seqpacket::UnixSeqpacket;
//! use tokio_seqpacket::ancillary::{AncillaryMessageWriter, OwnedAncillaryMessage};
//!
//! let (a, b) = UnixSeqpacket::pair()?;
//! let (one, two) = (File::open("/dev/null")?, File::open("/dev/zero")?);
//! let mut control = [0; 64];
//! let mut writer = AncillaryMessageWriter::new(&mut control);
//! writer.add_fds(&[&one, &two])?;
//! a.send_with_ancillary(b"two files", &mut writer).await?;
//!
//! let (mut bytes, mut control) = ([0; 64], [0; 64]);
//! let (_, reader) = b.recv_with_ancillary(&mut bytes, &mut control).await?;
//! assert!(!reader.is_truncated());
//! let mut files = Vec::new();
//! for message in reader.into_messages() {
//!     if let OwnedAncillaryMessage::FileDescriptors(fds) = message {
//!         files.extend(fds.map(File::from));
//!     }
//! }
//! assert_eq!(files.len(), 2);
//! # Ok(()) }
//! ```
//!
//! # Rules
//!
//! - **Owned from the start.** The owner of received descriptors closes those that are not taken: the
//!   reader, the [`AncillaryBuffer`], a stream's [`Message`](crate::Message), a receive that was dropped.
//!   All are close-on-exec.
//! - **A receive without capacity closes them.** [`recv`](crate::UnixSeqpacket::recv) does not report it,
//!   [`recv_owned`](crate::UnixSeqpacket::recv_owned) need not, and
//!   [`recv_batch`](crate::UnixSeqpacket::recv_batch) reports
//!   [`ancillary_truncated`](crate::MessageInfo::ancillary_truncated). How long that takes can be the peer's
//!   choice: [see below](#descriptors-that-nothing-asked-for).
//! - **Out of descriptors, or too little capacity:** the message is delivered, and what did not fit is closed. The call
//!   reports that ancillary data was truncated. Descriptors that did fit are there.
//! - **At least one byte?** Not needed here: an empty message may carry descriptors. A plain `recv` returns 0
//!   for it as for the end of the stream, so send a byte if the peer uses that.
//! - **Flags travel with the open file.** `O_NONBLOCK` and the file position belong to the open file, not to
//!   the descriptor: a process that changes them changes them for both. Close-on-exec belongs to the descriptor.
//! - **Limits.** 254 are refused with `InvalidInput` and nothing is sent. Descriptors in queued messages count
//!   against the sender's `RLIMIT_NOFILE`, for all processes of a user together (`ETOOMANYREFS`).
//! - **Not everything can be passed:** a descriptor of an io_uring ring is refused with `EINVAL`, a closed
//!   raw fd with `EBADF`.
//! - **Canceled sends.** Descriptors of a send that has to wait are held by the library until it has
//!   completed: as given for owned calls, as duplicates for borrowed ones. A raw fd that is closed and used
//!   again meanwhile is never passed in its place.
//!
//! # What can be passed
//!
//! Anything that turns into an `OwnedFd`: files, pipes, sockets of any kind, a `UnixSeqpacket` itself,
//! memory. For payloads that are longer than a message there is [`SealedMemory`](crate::SealedMemory), with
//! [`send_large`](crate::UnixSeqpacket::send_large). This passes a connected socket to another worker:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use std::os::fd::OwnedFd;
//! use tokio_seqpacket::UnixSeqpacket;
//! use tokio_seqpacket::ancillary::AncillaryBuffer;
//!
//! let (a, b) = UnixSeqpacket::pair()?;
//! let (client, server) = UnixSeqpacket::pair()?;
//! // Refuses if a dropped receive has left a message, which would stay behind.
//! let fd: OwnedFd = server.try_into_fd().expect("nothing was left unfinished");
//! let ancillary = AncillaryBuffer::from_iter([fd]);
//! a.send_owned_with_ancillary("yours now", ancillary).await.0?;
//!
//! let (received, _, mut ancillary) =
//!     b.recv_owned_with_ancillary(Vec::with_capacity(64), AncillaryBuffer::new()).await;
//! received?;
//! let fd = ancillary.drain_fds().next().expect("one came");
//! let server = UnixSeqpacket::try_from(fd)?; // checked: is it a connected seqpacket socket?
//! client.send(b"hello").await?;
//! assert_eq!(server.recv(&mut [0; 16]).await?, 5);
//! # Ok(()) }
//! ```
//!
//! A descriptor from a peer that you do not trust can be anything. Check what it is before you
//! read from it, as `TryFrom<OwnedFd>` of [`UnixSeqpacket`](crate::UnixSeqpacket) and
//! [`SealedMemory`](crate::SealedMemory) do. A file can be one that blocks for ever, or that the sender
//! changes while it is read.
//!
//! # What passes between two programs
//!
//! `seqpacket relay` (feature `cli`) listens in the place of a server, connects to it for each client, and shows each
//! message with its descriptors. The programs stay as they are:
//!
//! ```sh
//! mv /run/x.sock /run/x.real && seqpacket relay --mode 666 /run/x.sock /run/x.real
//! 14:03:58.123456 1 connected: pid 4711, uid 0, gid 0
//! 14:03:58.123460 1 > 6 bytes "hello\n"
//! 14:03:58.123499 1 < 8 bytes "a file: " with file /etc/hostname, pipe pipe:[4712]
//! ```
//!
//! `SO_PEERCRED` names the relay. Credentials of messages are the sender's if the relay runs as root, otherwise the relay's.
//!
//! # Descriptors that nothing asked for
//!
//! A peer can pass a descriptor whose *closing* takes long:
//! - The last descriptor of a TCP socket under `SO_LINGER` with unsent data: `close(2)` waits for as many seconds as the peer
//!   has set.
//! - A Unix socket with such a message in its queue.
//! - A file on a network or FUSE file system whose server does not answer.
//!
//! Closed on a thread of the runtime, it holds up all tasks there.
//!
//! | what closes it | what happens |
//! |---|---|
//! | the library: what is left in an [`AncillaryBuffer`] that was received, a reader, a [`Message`](crate::Message), a batch, or refused by [`recv_large`](crate::UnixSeqpacket::recv_large) or `TryFrom<OwnedFd>` | on a thread of its own, soon after; at once if it is known to close quickly: pipes, directories, memory, files on a disk |
//! | the kernel, inside a receive without capacity: plain receives of a socket on which no call has had capacity for ancillary data | the receive waits |
//! | the kernel, inside a receive: what a message brings beyond [`max_fds`](crate::Options::max_fds) | the receive waits |
//! | the kernel, when a socket with unread messages is closed | the close waits |
//! | the program, which has taken it; a value with `codec::Passed` that is dropped, also by its decoder | the program waits, unless it passes the descriptor to `spawn_blocking` |
//!
//! So a service chooses one of these:
//!
//! - **It takes no descriptors:** [`Options::pass_rights`](crate::Options::pass_rights)`(false)` (Linux 6.16). Peers get
//!   `EPERM`. This closes every row of the table.
//! - **It takes some, or runs on older kernels:** [`Options::keep_ancillary`](crate::Options::keep_ancillary) closes the
//!   second row. From the first call with capacity for ancillary data on it is closed anyway. The third row is open only
//!   where a limit was set.
//!
//! Eight such threads close at a time. If all are held up, and as many descriptors wait behind them as a quarter of
//! `RLIMIT_NOFILE`, more threads are started. Those switch `SO_LINGER` off first, which other owners of that socket can notice.
//! If no thread can be started, the runtime's thread does the same at once.
//!
//! [`AncillaryBuffer`]: crate::ancillary::AncillaryBuffer
//!
// Without the feature there is nothing to link to.
#![cfg_attr(
    feature = "postcard",
    doc = "[`Framed`]: crate::Framed",
    doc = "[`codec::Passed`]: crate::codec::Passed",
    doc = "[`codec::Postcard`]: crate::codec::Postcard",
    doc = "[`codec::WithFds`]: crate::codec::WithFds",
    doc = "[`codec::WithCredentials`]: crate::codec::WithCredentials"
)]
#![cfg_attr(
    not(feature = "postcard"),
    doc = "[`Framed`]: crate#features",
    doc = "[`codec::Passed`]: crate#features",
    doc = "[`codec::Postcard`]: crate#features",
    doc = "[`codec::WithFds`]: crate#features",
    doc = "[`codec::WithCredentials`]: crate#features"
)]
