//! Choosing a backend.
//!
//! A socket runs on one of two backends, and has the same calls and the same guarantees on both:
//!
//! - [`Backend::Epoll`]: a system call for each operation; tokio's I/O driver says when one that has to wait can go on.
//!   Available everywhere.
//! - [`Backend::Uring`]: the same while a thread has little to do. Under load the operations of all its ready tasks go through
//!   a ring, many with one system call. Linux 6.1 or newer, and where the process may use io_uring.
//!
//! **Choose nothing** unless you have a reason. Then a socket takes io_uring where a ring can be had and
//! epoll elsewhere.
//!
//! # Who decides
//!
//! | who | how | if it cannot be had |
//! |---|---|---|
//! | no one | [`Selection::Auto`], the default | epoll |
//! | the operator | `TOKIO_SEQPACKET_BACKEND=uring`, `epoll` or `auto` in the environment | an error |
//! | the program | [`Options::backend`] | an error |
//!
//! The program goes before the environment. The variable is read once in the life of a process; empty is as not set. A
//! value that is none of the three makes every socket that follows it an error (`InvalidInput`), so that a typing error
//! does not pass for a choice.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use std::io::ErrorKind;
//! use tokio_seqpacket::{Backend, Options, Selection};
//!
//! // The best there is. `Selection::Auto` is the default.
//! let (a, _b) = Options::new().backend(Selection::Auto).pair()?;
//! println!("runs on {}", a.backend());
//!
//! // This one and no other.
//! let (c, _d) = Options::new().backend(Backend::Epoll).pair()?;
//! assert_eq!(c.backend(), Backend::Epoll);
//!
//! // An explicit wish is met or refused.
//! match Options::new().backend(Backend::Uring).pair() {
//!     Ok((e, _f)) => assert_eq!(e.backend(), Backend::Uring),
//!     Err(error) => {
//!         assert_eq!(error.kind(), ErrorKind::Unsupported);
//!         println!("{error}"); // says what would have to change
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! A listener hands its choice on: what it accepts runs on the listener's backend. Accepting itself is
//! the same on both, readiness and `accept4(2)`. One exception: where the ring of the accepting runtime
//! has failed meanwhile, or a listener is used in a second runtime that can have none, accepted sockets go
//! to epoll rather than being lost. [`backend`](crate::UnixSeqpacket::backend) of the accepted socket says
//! what it is.
//!
//! # What differs
//!
//! Not the guarantees: order, cancel safety, fairness and ownership of descriptors are tested once, for
//! both. What differs:
//!
//! - **Speed.** With one busy connection on a thread both make the same system calls, and are level. With more, io_uring
//!   batches where that is faster, which it finds out by timing both ways. The more a system call costs, the more that
//!   saves: with 16 connections on a thread io_uring was a quarter ahead at 500 ns, and on one of two machines 6 % behind
//!   below 165 ns. The comparison in the repository (`benches/`) measures yours; BENCHMARKS.md says how to run and read it.
//! - **Resources.** A ring for each runtime, on a multi_thread runtime one for each worker that batches: one descriptor, 32 KiB of
//!   memory or 8 KiB where the limit is tight, which some kernels count as locked (see [containers](super::containers)), and 136 MiB of address space, of
//!   which some hundred KiB become memory.
//! - **The first poll.** Under load the first poll of an operation on io_uring may only queue it, and is pending though it could
//!   be served. It goes on once the task yields. A future that is dropped before that has done nothing, and the next operation of the
//!   socket is a system call at once. [`Submission::Direct`](crate::Submission) turns batches off for a socket.
//! - **System calls of your own** on the descriptor of an io_uring socket can miss a message that a dropped receive has left in
//!   the library.
//! - **Giving the descriptor away.** On io_uring a dropped receive can have left a message in the library:
//!   [`try_into_fd`](crate::UnixSeqpacket::try_into_fd) refuses then, where
//!   [`into_raw_fd`](crate::UnixSeqpacket::into_raw_fd) drops it.
//!
//! # How io_uring is used
//!
//! | `TOKIO_SEQPACKET_SUBMISSION`, [`Submission`](crate::Submission) | operations |
//! |---|---|
//! | `adaptive`, the default | in batches while a thread has enough of them and that is faster: under load both ways are timed by turns |
//! | `ring` | in batches whatever the load; sends over 4 KiB or with ancillary data are system calls here, too |
//! | `direct` | always system calls |
//!
//! A value of `TOKIO_SEQPACKET_SUBMISSION` that is none of these is an error of every socket, on epoll too, unless the
//! program chooses by [`Options::submission`](crate::Options::submission).
//!
//! [`metrics`](crate::metrics()) says what is done, and from how many operations on a batch pays here.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use tokio_seqpacket::{Options, Submission, metrics};
//!
//! let (a, b) = Options::new().submission(Submission::Direct).pair()?;
//! a.send(b"message").await?;
//! b.recv(&mut [0; 16]).await?;
//! assert_eq!(metrics()?.total().submissions, 0);
//! # Ok(()) }
//! ```
//!
//! # After `fork(2)`
//!
//! A child that calls `execve(2)` inherits nothing: all descriptors are close-on-exec. A child that does not has copies of the
//! sockets and of the runtime, on both backends.
//!
//! - **The ring** is never shared. A child that uses an inherited runtime makes a ring of its own. Nothing that the child does or
//!   drops reaches the parent's.
//! - **tokio's epoll set** is shared, as for every tokio socket: the kernel keeps one set for both processes (see `epoll(7)`). A
//!   child that drops an inherited socket removes it from the parent's set, and what waits in the parent is not woken. A child
//!   that runs the inherited runtime takes the parent's events. So leave inherited sockets and runtimes alone until the
//!   child exits, or fork before there is a runtime.
//! - **The socket** itself is shared: the peer sees the end of the stream when the last copy is closed.
//!
//! # Reasons to choose epoll
//!
//! - A security policy that wants io_uring unused though it is allowed.
//! - A fault that is to be looked for: `TOKIO_SEQPACKET_BACKEND=epoll` changes the backend and nothing else.
//!
//! [`Backend::Epoll`]: crate::Backend::Epoll
//! [`Backend::Uring`]: crate::Backend::Uring
//! [`Selection::Auto`]: crate::Selection::Auto
//! [`Options::backend`]: crate::Options::backend
