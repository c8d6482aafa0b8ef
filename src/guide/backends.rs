//! Choosing a backend.
//!
//! A socket runs on one of two engines, and has the same calls and the same guarantees on both:
//!
//! - [`Backend::Epoll`]: tokio's I/O driver says that a socket is ready, then a system call is made.
//!   Available everywhere.
//! - [`Backend::Uring`]: calls that can be served at once are system calls as well; those that have to
//!   wait become operations of a ring, which the kernel completes together with their message. Linux 6.1
//!   or newer, and where the process may use io_uring.
//!
//! **Choose nothing** unless you have a reason. Then a socket takes io_uring where a ring can be had and
//! epoll elsewhere.
//!
//! # Who decides
//!
//! | who | how | if it cannot be had |
//! |---|---|---|
//! | nobody | [`Selection::Auto`], the default | epoll |
//! | the operator | `TOKIO_SEQPACKET_BACKEND=uring`, `epoll` or `auto` in the environment | an error |
//! | the program | [`Options::backend`] | an error |
//!
//! The program goes before the environment. The variable is read once in the life of a process; a value
//! that is none of the three makes every socket that follows it an error, so that a typing error does not
//! pass for a choice.
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
//! - **Speed.** While messages are there when somebody asks for them, both come down to the same system calls
//!   and are level. io_uring is ahead where sockets wait: with many of them what waits is submitted and
//!   completed in batches, and a quiet connection is registered nowhere. `cargo bench --bench compare` in the repository measures both on your machine, with
//!   tokio-seqpacket beside them, and BENCHMARKS.md says how to read it.
//! - **Resources.** A ring for each runtime, on a multi-thread runtime one for each worker that uses
//!   sockets: 32 KiB of locked memory each, or 8 KiB where the limit is tight; see
//!   [containers](super::containers). An idle connection with a receive pending takes 1 KB of the process's
//!   memory on either (BENCHMARKS.md).
//! - **Raw access.** [`as_async_fd`](crate::UnixSeqpacket::as_async_fd) and the functions that wait for
//!   readiness ([`readable`](crate::UnixSeqpacket::readable), [`peek`](crate::UnixSeqpacket::peek)) register
//!   the socket for good when they first need it; from then on every message costs an event more. (Else it is
//!   registered only while calls have to wait, on io_uring rarely.) On io_uring, and for `as_async_fd` on both,
//!   it is a duplicate that is registered. System calls of your own on the descriptor of an io_uring socket can
//!   miss a message that a dropped receive has left in the library.
//! - **Giving the descriptor away.** On io_uring a message may have been received for nobody:
//!   [`try_into_fd`](crate::UnixSeqpacket::try_into_fd) refuses then, where
//!   [`into_raw_fd`](crate::UnixSeqpacket::into_raw_fd) drops it.
//! - **A send that waits while `shutdown(Write)` is called** returns at once on io_uring; on epoll only when
//!   the peer reads or goes, since the kernel reports nothing before.
//!
//! # Reasons to choose epoll
//!
//! - A security policy that wants io_uring unused though it is allowed.
//! - A fault that is to be looked for: `TOKIO_SEQPACKET_BACKEND=epoll` changes the engine and nothing else.
//!
//! [`Backend::Epoll`]: crate::Backend::Epoll
//! [`Backend::Uring`]: crate::Backend::Uring
//! [`Selection::Auto`]: crate::Selection::Auto
//! [`Options::backend`]: crate::Options::backend
