//! Credentials: what each proves, and what it does not.
//!
//! There are two questions:
//!
//! - **Which process made this connection?** The process that called `connect(2)`, `listen(2)` or `socketpair(2)` at
//!   the other end, as it was *then*. A socket can be inherited over `fork(2)` and passed on. So another process can hold
//!   the other end now.
//! - **Which process sent this message?** The process that called `sendmsg(2)`, at that moment.
//!
//! | call | about | proves | does not prove |
//! |---|---|---|---|
//! | [`peer_cred`] (`SO_PEERCRED`) | the connection | effective user and group id, and the process id, when the connection was made | that it still runs, or still has these ids; that its process id is not another's by now |
//! | [`peer_pidfd`] (`SO_PEERPIDFD`, 6.5) | the connection | which process it was, for good: a pidfd never comes to mean another | that it is alive, or holds the other end |
//! | [`peer_groups`] (`SO_PEERGROUPS`) | the connection | its supplementary groups when the connection was made | that it is still in them |
//! | [`peer_security_label`] (`SO_PEERSEC`) | the connection | the label that the active security module gave the socket | anything, where no module labels sockets |
//! | [`set_pass_credentials`] (`SO_PASSCRED`) | each message | process id, real user and group id of the sender, or others that it may claim | that it is alive when the message is read |
//! | [`set_pass_pidfd`] (`SO_PASSPIDFD`, 6.5) | each message | which process sent it, for good | that it is alive, or has not run another program since |
//! | [`peer_addr`](crate::UnixSeqpacket::peer_addr) | | nothing: any process may bind to a name that is free | |
//!
//! Effective and real ids differ in set-user-id programs: `SO_PEERCRED` has the effective ones, and messages carry
//! the real ones. A sender may claim its real, effective or saved id instead. With `CAP_SETUID`, `CAP_SETGID` or
//! `CAP_SYS_ADMIN` it may claim any user, group or process. A claim that is not allowed fails the send with `EPERM`. A claim of
//! a user or group without an id in the sender's user namespace fails it with `EINVAL`.
//!
//! # Deciding which peers may connect
//!
//! For most services the first question is the right one. They ask it once:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use tokio_seqpacket::{Options, SocketAddr, UCred, UnixSeqpacket};
//!
//! let listener = Options::new().bind_addr(&SocketAddr::unnamed(), 16)?;
//! # let _client = Options::new().connect_addr(&listener.local_socket_addr()?).await?;
//! let socket: UnixSeqpacket = listener.accept().await?;
//! let peer = socket.peer_cred()?;
//! let me = UCred::from_current_process();
//! if peer.uid() != me.uid() && peer.uid() != 0 {
//!     drop(socket); // not ours
//! }
//! # Ok(()) }
//! ```
//!
//! A socket file with the right mode keeps others out before that: [`Options::mode`](crate::Options::mode).
//! Names in the abstract namespace have no mode, and any process in the network namespace may connect.
//!
//! # The sender of each message
//!
//! Bind the listener with the option: accepted sockets have it from their first message on.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use tokio_seqpacket::ancillary::AncillaryBuffer;
//! use tokio_seqpacket::{Options, SocketAddr};
//!
//! let options = Options::new().pass_credentials(true);
//! let listener = options.bind_addr(&SocketAddr::unnamed(), 16)?;
//! let client = Options::new().connect_addr(&listener.local_socket_addr()?).await?;
//! client.send(b"before it was accepted").await?;
//!
//! let server = listener.accept().await?;
//! assert!(server.pass_credentials()?);
//! let (received, _, ancillary) =
//!     server.recv_owned_with_ancillary(Vec::with_capacity(64), AncillaryBuffer::new()).await;
//! received?;
//! let sender = ancillary.credentials().expect("they come with every message");
//! assert_eq!(sender.pid(), Some(std::process::id() as i32));
//! # Ok(()) }
//! ```
//!
//! The option has a second use. A message carries credentials then, even an empty one, and the end of the stream does not. So
//! [`end_of_stream`](crate::MessageInfo::end_of_stream) can distinguish them in every case.
//!
//! # A process id can change its owner
//!
//! A process id can be given to another process as soon as the first has ended. A program that uses it for a query
//! (`/proc/PID`, a policy service) may get the answer for another process. With a pidfd there is a safe order: take the
//! pidfd, make the query with the process id, and then check through the pidfd that the process is still alive. If it is, the
//! id was its own all the time.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! # let (socket, _peer) = tokio_seqpacket::UnixSeqpacket::pair()?;
//! let pidfd = match socket.peer_pidfd() {
//!     Ok(pidfd) => pidfd,
//!     // Linux before 6.5: the answer is as good as the process id then.
//!     Err(error) if error.kind() == std::io::ErrorKind::Unsupported => return Ok(()),
//!     Err(error) => return Err(error),
//! };
//! let Some(pid) = socket.peer_cred()?.pid() else { return Ok(()) };
//! let name = std::fs::read_to_string(format!("/proc/{pid}/comm"))?;
//! // A pidfd is readable once its process has ended.
//! let ended = tokio::io::unix::AsyncFd::new(pidfd)?;
//! let still_there = tokio::select! {
//!     biased;
//!     _ = ended.readable() => false,
//!     _ = tokio::task::yield_now() => true,
//! };
//! # assert!(still_there);
//! println!("{name} is at the other end: {still_there}");
//! # Ok(()) }
//! ```
//!
//! [`UCred::pid`](crate::UCred::pid) is `None` where the kernel reports 0: the process is in a process
//! namespace that is not visible from here, in another container for example. Users and groups without an
//! id in the receiver's user namespace come as 65534.
//!
//! [`peer_cred`]: crate::UnixSeqpacket::peer_cred
//! [`peer_pidfd`]: crate::UnixSeqpacket::peer_pidfd
//! [`peer_groups`]: crate::UnixSeqpacket::peer_groups
//! [`peer_security_label`]: crate::UnixSeqpacket::peer_security_label
//! [`set_pass_credentials`]: crate::UnixSeqpacket::set_pass_credentials
//! [`set_pass_pidfd`]: crate::UnixSeqpacket::set_pass_pidfd
