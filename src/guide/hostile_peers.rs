//! Hostile peers: what a process at the other end can do to a service, and which option limits it.
//!
//! Here a peer is any process that may connect. The mode of the socket file decides that first
//! ([`Options::mode`], [`Options::owner`]). A name in the abstract namespace has no mode, so every process in the network
//! namespace may connect to it.
//!
//! | what a peer does | what limits it | since | what remains |
//! |---|---|---|---|
//! | opens many connections | [`Incoming::max_connections`], [`Incoming::max_per_user`] | | connections of other users wait while all places are taken |
//! | connects without being allowed to | [`Options::mode`], [`Incoming::authorize`] | | each try costs an `accept4(2)` and a close |
//! | passes descriptors to a service that takes none | [`Options::pass_rights`]`(false)` | Linux 6.16 | nothing: its send fails with `EPERM` |
//! | passes 253 descriptors with each message | [`Options::max_fds`] | | one message holds as many as allowed, and the price below |
//! | passes descriptors that take long to close | no `max_fds`, and [`Options::keep_ancillary`] | | a close of the socket while messages are unread |
//! | passes a file that blocks, or that it changes later | checks of the program: see below | | |
//! | sends huge messages | the capacity of the buffer, [`MessagesOptions::size`] | | 4.25 MiB for each socket on io_uring, for a moment |
//! | sends a value that is nested deeply | types that do not contain themselves, in `Postcard` and other codecs | | |
//! | sends without end | the coop budget of every call | | its share of the processor |
//! | does not read | a timeout around each send | | messages that wait, as many as the program lets wait |
//! | does not write | a timeout around each receive, [`Incoming::max_connections`] | | one descriptor for each connection |
//! | sends empty messages, to be taken for the end | [`MessageInfo::end_of_stream`], [`Messages`] | | plain `recv` returns 0 for both |
//! | claims to be another | nothing to do: the kernel checks credentials | pidfds: 6.5 | a privileged process may claim any user |
//! | goes away in the middle of a request | nothing to do: a message arrives whole or not at all | | |
//! | closes, so that a send raises `SIGPIPE` | nothing to do: every send has `MSG_NOSIGNAL` | | |
//!
//! Where no version stands, every kernel on which this crate runs has it. On kernels before 6.16 a service finds out by
//! `Unsupported`, and goes on without `pass_rights`.
//!
//! # A service with all limits
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use std::time::Duration;
//! use tokio::time::timeout;
//! use tokio_seqpacket::{Options, SocketAddr, UnixSeqpacket};
//!
//! const PATIENCE: Duration = Duration::from_secs(10);
//!
//! async fn serve(socket: UnixSeqpacket) -> std::io::Result<()> {
//!     loop {
//!         // A peer that does not write, or does not read, is cut off.
//!         let (received, request) = timeout(PATIENCE, socket.recv_owned(vec![0; 4096])).await?;
//!         let info = received?;
//!         if info.end_of_stream() == Some(true) {
//!             return Ok(());
//!         }
//!         if info.truncated() {
//!             return Err(std::io::ErrorKind::InvalidData.into());
//!         }
//!         timeout(PATIENCE, socket.send(&request[..info.bytes_read()])).await??;
//!     }
//! }
//!
//! # async fn client(address: SocketAddr) -> std::io::Result<()> {
//! #     let client = Options::new().connect_addr(&address).await?;
//! #     client.send(b"question").await?;
//! #     assert_eq!(client.recv(&mut [0; 16]).await?, 8);
//! #     Ok(())
//! # }
//! // With credentials, the end of the stream and an empty message can be told apart.
//! let options = Options::new().max_fds(0).pass_credentials(true);
//! // Better, where the kernel has it: peers cannot even send descriptors.
//! let refusing = options.clone().pass_rights(false).bind_addr(&SocketAddr::unnamed(), 64);
//! let listener = refusing.or_else(|_| options.bind_addr(&SocketAddr::unnamed(), 64))?;
//! # let peer = tokio::spawn(client(listener.local_socket_addr()?));
//!
//! let mut incoming = listener
//!     .incoming()?
//!     .max_connections(500)
//!     .max_per_user(50)
//!     .authorize(|socket| socket.peer_cred().is_ok_and(|peer| peer.uid() != 65534));
//! // In a service: loop {
//! let socket = incoming.accept().await?;
//! let serving = tokio::spawn(serve(socket));
//! # peer.await??;
//! # serving.await??;
//! # Ok(()) }
//! ```
//!
//! # Connections
//!
//! [`Incoming`] survives the shortage that a flood causes: where no descriptors are left it waits, and loses no connection.
//! A limit keeps the rest of the process out of that shortage.
//!
//! - At [`max_connections`] it accepts no more until a connection ends. Clients wait in the kernel's queue, which has
//!   `backlog` + 1 places. Then `connect` waits, too.
//! - Beyond [`max_per_user`] a connection is closed at once. In the queue it would hold up other users. Set
//!   `max_connections` well above it. As many users as it takes to fill all places can still keep others waiting.
//! - [`authorize`] sees the socket before the service does. It can ask for the peer's user, groups and security label, and
//!   send a reason. A connection that it refuses takes no place.
//!
//! [`refused`](crate::Incoming::refused) counts, and each refusal is an event with the feature `tracing`. A refused connection is
//! closed beside the runtime, since its queue can hold what takes long to close.
//!
//! Every process that shares a listener can end it with `shutdown(2)`. `accept` then returns `InvalidInput`.
//!
//! # Descriptors
//!
//! By default one message brings up to 253 descriptors, and one call of a stream receives up to 32 messages. Whatever is not
//! taken is closed, and descriptors that take long to close are closed beside the runtime
//! ([`descriptors`](crate::guide::descriptors#descriptors-that-nothing-asked-for)). So nothing leaks and nothing waits. But
//! for a moment the process holds them, and another part of it can find the limit of open files reached.
//!
//! There is no setting without a price, except for the first:
//!
//! | setting | raw fds that one message takes | who closes the surplus |
//! |---|---|---|
//! | `pass_rights(false)` (Linux 6.16) | none | the sender keeps it |
//! | `max_fds(n)` | `n` | the kernel, within the receive: a peer can make that take as long as it likes |
//! | the default | 253 | the library, beside the runtime where it can take long |
//! | only plain receives, without `keep_ancillary` | none | the kernel, within the receive, as for `max_fds` |
//!
//! So `max_fds` protects a service whose open files are scarce, from peers that flood it. The default protects a service
//! from peers that make it wait, and needs a high `RLIMIT_NOFILE`: 253 for each connection that is received from at the same
//! time. A service that must withstand both takes descriptors over a socket and a thread of their own, or none.
//!
//! A service that passes descriptors and takes none, such as a broker of open files, uses `pass_rights(false)`. It can still
//! send them. `Framed::max_fds` limits both directions of its socket, and replaces the limit of `Options::max_fds`. Without
//! `pass_rights(false)`, a request that brings a descriptor is an error of the stream, unless its value names that.
//!
//! Closing a socket closes what is unread in its queue, in the kernel. Where `pass_rights(false)` is not possible, drop the
//! socket of a peer that was cut off on a thread that may wait:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! # let (socket, peer) = tokio_seqpacket::UnixSeqpacket::pair()?;
//! # peer.send(b"never read").await?;
//! tokio::task::spawn_blocking(move || drop(socket)).await?;
//! # assert!(peer.recv(&mut [0; 4]).await.is_err());
//! # Ok(()) }
//! ```
//!
//! A descriptor that was taken is the program's to check and to close:
//!
//! - It can be anything: a directory, a terminal, a socket, a `memfd`. `fstat(2)` answers what it is. On a FUSE file system
//!   even that asks the peer's server, which need not answer. So ask on a thread that may wait.
//! - A read can block for ever, also on a file that is non-blocking now. The flag belongs to the open file, and the sender
//!   can change it at any time. Read with `spawn_blocking`, or take only kinds that cannot block.
//! - A mapped file that the sender shortens raises `SIGBUS`. [`SealedMemory`] maps only memory that is sealed against that.
//! - `close(2)` can wait. Drop it with `spawn_blocking` where the peer is not trusted.
//!
//! Descriptors in queued messages count against the sender's `RLIMIT_NOFILE` (`ETOOMANYREFS`), not against the service's.
//!
//! # Messages
//!
//! A message arrives whole or not at all, so no request is ever half sent and no parser waits for the rest of one.
//!
//! The sender's send buffer bounds the length: 212,960 bytes by default, 416 KiB where `net.core.wmem_max` is as by default,
//! 4.25 MiB at most for a privileged sender. The queue is charged to the sender. The receive's buffer bounds what it takes,
//! and [`MessageInfo::truncated`] reports a longer one. On io_uring a receive through the ring takes the whole message for a
//! moment: one for each socket that is received from. A stream holds `buffers` times `size` bytes.
//!
//! A codec decodes on the task's stack. Where a type contains itself, such as a tree, each byte of a message can add a
//! level, and an overflow of the stack ends the process. serde and postcard have no limit. Receive such a type only from
//! trusted peers, or as a list whose elements name each other by index.
//!
//! Every call pays tokio's cooperative budget. So a peer that sends without end does not keep other tasks of its worker from
//! running. It has its own task's share of the processor, which the service can bound by pausing between requests.
//!
//! An empty message is no end. Plain `recv` returns 0 for both, as in tokio-seqpacket. A service that ends a connection at
//! 0 harms only the peer that sent it. One that counts on the peer's end uses [`MessageInfo::end_of_stream`] or
//! [`Messages`].
//!
//! # Peers that do nothing
//!
//! A peer that does not read lets sends wait. They wait in the order of their first poll, and each owns its message. The
//! service bounds how many there are: it sends an answer before it takes the next request, or stops at a number of its
//! own. A send that a timeout drops is never sent later, so the stream stays in order.
//!
//! A peer that does not write costs a descriptor, and the memory of its task. A timeout around the receive ends that, and
//! loses no message if it races with one.
//!
//! # Identity
//!
//! The kernel fills in the peer's credentials when it connects (`SO_PEERCRED`), and checks those that come with a message.
//! They cannot be forged, except by a privileged process. But they are those of the process that connected. It can pass the
//! socket to another, and end. Its process id can then be that of a third. What each answer proves is in
//! [`credentials`](crate::guide::credentials). Users of another namespace that are not mapped here are one user, 65534 as a
//! rule. They share the places of [`max_per_user`].
//!
//! A peer can set `SO_PASSRIGHTS` to 0 on its own end. A send of the service with descriptors then fails with `EPERM`, and
//! ends nothing.
//!
//! [`Incoming`]: crate::Incoming
//! [`Incoming::authorize`]: crate::Incoming::authorize
//! [`Incoming::max_connections`]: crate::Incoming::max_connections
//! [`Incoming::max_per_user`]: crate::Incoming::max_per_user
//! [`MessageInfo::end_of_stream`]: crate::MessageInfo::end_of_stream
//! [`MessageInfo::truncated`]: crate::MessageInfo::truncated
//! [`Messages`]: crate::Messages
//! [`MessagesOptions::size`]: crate::MessagesOptions::size
//! [`Options::keep_ancillary`]: crate::Options::keep_ancillary
//! [`Options::max_fds`]: crate::Options::max_fds
//! [`Options::mode`]: crate::Options::mode
//! [`Options::owner`]: crate::Options::owner
//! [`Options::pass_rights`]: crate::Options::pass_rights
//! [`SealedMemory`]: crate::SealedMemory
//! [`authorize`]: crate::Incoming::authorize
//! [`max_connections`]: crate::Incoming::max_connections
//! [`max_per_user`]: crate::Incoming::max_per_user
