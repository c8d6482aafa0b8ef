//! Choosing a backend.
//!
//! A socket runs on one of two backends, and has the same calls and the same guarantees on both:
//!
//! - [`Backend::Epoll`]: a system call for each operation. tokio's I/O driver wakes an operation that has to wait.
//!   Available everywhere.
//! - [`Backend::Uring`]: the same while a thread has little to do. Under load the operations of all its ready tasks go through
//!   a ring, many with one system call. It requires Linux 6.1, and that the process may use io_uring.
//!
//! **Choose nothing** unless you have a reason. Then a socket uses io_uring where a ring can be made, and
//! epoll elsewhere.
//!
//! # How the choice is made
//!
//! | chosen by | how | if it is not available |
//! |---|---|---|
//! | default | [`Selection::Auto`] | epoll |
//! | the operator | `TOKIO_SEQPACKET_BACKEND=uring`, `epoll` or `auto` in the environment | an error |
//! | the program | [`Options::backend`] | an error |
//!
//! The program's choice overrides the environment variable, which is read once in each process. An empty value counts as
//! not set. With any other value, every socket whose backend the variable decides fails with `InvalidInput`. So a typing
//! error is reported, not ignored.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use std::io::ErrorKind;
//! use tokio_seqpacket::{Backend, Options, Selection};
//!
//! // The best available backend. `Selection::Auto` is the default.
//! let (a, _b) = Options::new().backend(Selection::Auto).pair()?;
//! println!("runs on {}", a.backend());
//!
//! // This one and no other.
//! let (c, _d) = Options::new().backend(Backend::Epoll).pair()?;
//! assert_eq!(c.backend(), Backend::Epoll);
//!
//! // An explicit choice is met or refused.
//! match Options::new().backend(Backend::Uring).pair() {
//!     Ok((e, _f)) => assert_eq!(e.backend(), Backend::Uring),
//!     Err(error) => {
//!         assert_eq!(error.kind(), ErrorKind::Unsupported);
//!         println!("{error}"); // names what would have to change
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! A listener passes its choice on: accepted sockets run on the listener's backend. Accepting itself is
//! the same on both, readiness and `accept4(2)`. There is one exception: the ring of the accepting runtime has failed
//! meanwhile, or the listener is used in a second runtime that can have none. Then accepted sockets run on epoll instead of
//! being lost. [`backend`](crate::UnixSeqpacket::backend) of the accepted socket returns its backend.
//!
//! # What differs
//!
//! The guarantees are the same: order, cancel safety, fairness and ownership of descriptors are tested by the same tests on
//! both. These things differ:
//!
//! - **Speed.** With one busy connection on a thread both make the same system calls, and are equally fast. With more, io_uring
//!   batches where that is faster, which it finds out by timing both ways. The more a system call costs, the more that
//!   saves. With 16 connections on a thread and calls of 500 ns, io_uring had 1.66 times the speed of tokio-seqpacket 0.8.2,
//!   epoll 1.47 times. With calls of 165 ns these were 1.46 and 1.49, level within the noise. The comparison in the repository (`benches/`) measures yours; BENCHMARKS.md says how to run and read it.
//! - **Resources.** A ring for each runtime, on a multi_thread runtime one for each worker that batches: one descriptor, 32 KiB of
//!   memory or 8 KiB where the limit is tight, which some kernels count as locked (see [containers](super::containers)), and 136 MiB of address space, of
//!   which some hundred KiB become memory.
//! - **The first poll.** Under load the first poll of an operation on io_uring may only queue it, and is pending though it could
//!   be served. It continues once the task yields. A future that is dropped before that has done nothing, and the next operation
//!   of the socket is a system call at once. [`Submission::Direct`](crate::Submission) turns batches off for a socket.
//! - **System calls of your own** on the descriptor of an io_uring socket can miss a message that a dropped receive has left in
//!   the library.
//! - **Giving the descriptor away.** On io_uring a dropped receive can have left a message in the library. Then
//!   [`try_into_fd`](crate::UnixSeqpacket::try_into_fd) refuses, and
//!   [`into_raw_fd`](crate::UnixSeqpacket::into_raw_fd) drops the message.
//!
//! # How io_uring is used
//!
//! | `TOKIO_SEQPACKET_SUBMISSION`, [`Submission`](crate::Submission) | operations |
//! |---|---|
//! | `adaptive`, the default | in batches while a thread has enough of them and that is faster: under load both ways are timed in turns |
//! | `ring` | in batches whatever the load, but for sends over 4 KiB or with ancillary data, which are system calls here, too |
//! | `direct` | always system calls |
//!
//! Any other value of `TOKIO_SEQPACKET_SUBMISSION` makes every socket fail, on epoll too, unless the program chooses by
//! [`Options::submission`](crate::Options::submission).
//!
//! [`metrics`](crate::metrics()) returns what was done, and from how many operations on a batch pays here.
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
//! A child that calls `execve(2)` inherits nothing: all descriptors are close-on-exec. A child that does not call it has copies
//! of the sockets and of the runtime, on both backends.
//!
//! - **The ring** is never shared. A child that uses an inherited runtime makes a ring of its own. Nothing that the child does or
//!   drops reaches the parent's ring.
//! - **tokio's epoll set** is shared, as for every tokio socket: the kernel keeps one set for both processes (see `epoll(7)`). A
//!   child that drops an inherited socket removes it from the parent's set, and operations that wait in the parent are not
//!   woken. A child that runs the inherited runtime takes the parent's events. So do not use inherited sockets and runtimes
//!   until the child exits, or fork before there is a runtime.
//! - **The socket** itself is shared: the peer sees the end of the stream when the last copy is closed.
//!
//! # Reasons to choose epoll
//!
//! - A security policy that forbids io_uring although the kernel allows it.
//! - Debugging. `TOKIO_SEQPACKET_BACKEND=epoll` changes the backend and nothing else, which shows whether a fault depends on
//!   io_uring.
//!
//! [`Backend::Epoll`]: crate::Backend::Epoll
//! [`Backend::Uring`]: crate::Backend::Uring
//! [`Selection::Auto`]: crate::Selection::Auto
//! [`Options::backend`]: crate::Options::backend
