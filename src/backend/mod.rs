//! Which backend a socket runs on, and what both are made of.
//!
//! | module | what |
//! |---|---|
//! | `mod.rs` | the choice of a backend, and of how io_uring is used |
//! | [`socket`], [`listener`] | the calls |
//! | [`recv`], [`send`] | the futures: from the first poll to a result or a drop |
//! | [`core`] | a socket as its calls, its drivers and its waker know it |
//! | [`driver`] | the task of each worker that works for all sockets |
//! | [`runtime`] | the tokio runtime, and its workers |
//! | [mod@metrics] | what they counted |
//!
//! A backend supplies how operations are *run*; waiting, order and cancellation are the same on both. epoll runs each by a
//! system call ([`crate::sys`]) and waits by [`crate::epoll::readiness`]. io_uring adds [`crate::uring::ring::Ring::run`]: a
//! batch of operations in, an answer for each out, and nothing left in the kernel. A third backend would supply the same.

mod core;
mod driver;
mod listener;
mod metrics;
#[cfg(any(test, fuzzing))]
pub(crate) mod model;
mod recv;
mod runtime;
mod send;
mod socket;

pub(crate) use listener::Listener;
pub use metrics::{Counters, Metrics, Mode, WorkerMetrics, metrics};
pub(crate) use recv::{Bytes, Plain, Receive, Sink};
pub use runtime::busy_poll;
pub(crate) use send::WaitingSend;
pub(crate) use socket::Socket;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use crate::uring::probe::{UringSupport, is_available, probe};

/// What a socket runs on.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// let (socket, _peer) = tokio_seqpacket::UnixSeqpacket::pair()?;
/// match socket.backend() {
///     tokio_seqpacket::Backend::Uring => println!("io_uring"),
///     tokio_seqpacket::Backend::Epoll => println!("epoll: {}", tokio_seqpacket::probe()),
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Backend {
    /// io_uring: a system call for each operation, and under load many operations with one. Waits as epoll does.
    Uring,
    /// A system call for each operation. One that has to wait is told by tokio's I/O driver (epoll) when to go on.
    Epoll,
}

impl std::fmt::Display for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Uring => "io_uring",
            Self::Epoll => "epoll",
        })
    }
}

/// A wish for a [`Backend`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use tokio_seqpacket::{Backend, Options, Selection};
///
/// // From a setting of the program's own.
/// let setting = "auto";
/// let selection = match setting {
///     "uring" => Selection::Uring,
///     "epoll" => Selection::Epoll,
///     _ => Selection::Auto,
/// };
/// let (socket, _peer) = Options::new().backend(selection).pair()?;
/// # drop(socket);
/// assert_eq!(Selection::from(Backend::Epoll), Selection::Epoll);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Selection {
    /// The best that is available, unless `TOKIO_SEQPACKET_BACKEND` names one. A denial of io_uring by a filter is
    /// remembered for the life of the process; what may pass is asked about once a second at most (a sysctl), or
    /// ten times (an exhausted limit).
    #[default]
    Auto,
    /// io_uring, or an error that says why not.
    Uring,
    /// epoll.
    Epoll,
}

impl From<Backend> for Selection {
    fn from(backend: Backend) -> Self {
        match backend {
            Backend::Uring => Self::Uring,
            Backend::Epoll => Self::Epoll,
        }
    }
}

/// How a socket on io_uring submits its operations. Does nothing on epoll.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use tokio_seqpacket::{Options, Submission};
///
/// // One connection that must answer at once, however busy the others are.
/// let (a, b) = Options::new().submission(Submission::Direct).pair()?;
/// a.send(b"now").await?;
/// assert_eq!(b.recv(&mut [0; 8]).await?, 3);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Submission {
    /// By load, and by what is faster: a worker whose tasks have enough operations for a batch makes them in batches or by
    /// system calls. Both are timed by turns, the slower one for a few percent of the operations at first and less later.
    #[default]
    Adaptive,
    /// Through the ring whatever the load, if called on a worker of the socket's runtime. The first poll of an operation
    /// queues it for the next batch, and is pending. Some are system calls in any case: sends over 4 KiB or with ancillary
    /// data, and receives behind a large message.
    Ring,
    /// Always by system calls.
    Direct,
}

/// The operators' switches. Each is read once.
const VARIABLE: &str = "TOKIO_SEQPACKET_BACKEND";
const SUBMISSION_VARIABLE: &str = "TOKIO_SEQPACKET_SUBMISSION";

fn from_environment<T: Copy>(
    variable: &str,
    known: &OnceLock<Result<T, String>>,
    values: &[(&str, T)],
) -> io::Result<T> {
    let parsed = known.get_or_init(|| {
        let Some(value) = std::env::var_os(variable) else { return Ok(values[0].1) };
        let meant = values.iter().find(|(name, _)| value == *name);
        let default = value.is_empty().then_some(&values[0]);
        meant.or(default).map(|(_, meant)| *meant).ok_or_else(|| {
            let names: Vec<_> = values.iter().map(|(name, _)| *name).collect();
            format!("{variable}={} is not one of {}", value.display(), names.join(", "))
        })
    });
    match parsed {
        Ok(value) => Ok(*value),
        Err(what) => Err(io::Error::new(io::ErrorKind::InvalidInput, what.clone())),
    }
}

fn selection_from_environment() -> io::Result<Selection> {
    static VALUE: OnceLock<Result<Selection, String>> = OnceLock::new();
    let values =
        [("auto", Selection::Auto), ("uring", Selection::Uring), ("epoll", Selection::Epoll)];
    from_environment(VARIABLE, &VALUE, &values)
}

fn submission_from_environment() -> io::Result<Submission> {
    static VALUE: OnceLock<Result<Submission, String>> = OnceLock::new();
    let values = [
        ("adaptive", Submission::Adaptive),
        ("ring", Submission::Ring),
        ("direct", Submission::Direct),
    ];
    from_environment(SUBMISSION_VARIABLE, &VALUE, &values)
}

/// A decision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice {
    backend: Backend,
    /// io_uring was not asked for: where it cannot be had, epoll will do.
    may_fall_back: bool,
    submission: Submission,
}

impl Choice {
    /// For sockets that a listener accepts.
    pub(crate) fn as_listener(self) -> Self {
        Self { may_fall_back: true, ..self }
    }
}

/// Decide. An explicit wish that cannot be met is an error, never a silent fallback.
pub(crate) fn select(selection: Selection, submission: Option<Submission>) -> io::Result<Choice> {
    let submission = submission.map_or_else(submission_from_environment, Ok)?;
    let (selection, asked_by) = match selection {
        Selection::Auto => (selection_from_environment()?, VARIABLE),
        explicit => (explicit, "the program"),
    };
    let epoll = Choice { backend: Backend::Epoll, may_fall_back: false, submission };
    let uring = |may_fall_back| Choice { backend: Backend::Uring, may_fall_back, submission };
    match selection {
        // Nothing of io_uring is touched, not even to look for it: a filter may kill for that.
        Selection::Epoll => Ok(epoll),
        Selection::Auto => Ok(if is_available() { uring(true) } else { epoll }),
        // Asked anew: an explicit wish is refused with today's reason.
        Selection::Uring => match probe() {
            UringSupport::Available { .. } => Ok(uring(false)),
            support => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("{asked_by} asks for io_uring: {support}"),
            )),
        },
    }
}

impl Socket {
    /// Makes a socket of a non-blocking descriptor, on the backend that was chosen.
    pub(crate) fn on(choice: Choice, fd: OwnedFd) -> io::Result<Self> {
        let fd = match choice.backend {
            Backend::Epoll => fd,
            Backend::Uring => match Self::new(fd, Some(choice.submission)) {
                Ok(socket) => return Ok(socket),
                Err((error, Some(fd))) if choice.may_fall_back => {
                    crate::common::trace::fell_back(&error);
                    fd
                }
                Err((error, _)) => return Err(error),
            },
        };
        Self::new(fd, None).map_err(|(error, _)| error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::metrics::Counter;
    use crate::net::options::Options;
    use crate::net::socket::UnixSeqpacket;
    use crate::uring::ring::refusing::{ERRNO, EVERY};

    /// Refused operations are called directly, or tried again: nothing fails, is lost or comes twice.
    #[test]
    fn an_operation_that_the_ring_refuses_is_done_without_it() {
        if !is_available() {
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let refusals = [libc::EACCES, libc::EPERM, libc::EINVAL, libc::EOPNOTSUPP, libc::ENOMEM];
        for errno in refusals.into_iter().chain([libc::ECANCELED, libc::EINTR]) {
            for (every, keeps) in [(1, false), (2, false), (3, true), (7, false)] {
                // What is refused for ever with an error that says "again" is tried for ever.
                if every == 1 && !refusals.contains(&errno) {
                    continue;
                }
                let refused = || {
                    let runtime = runtime::Runtime::here().unwrap();
                    runtime.some_worker().counters.get(Counter::Refused)
                };
                runtime.block_on(async {
                    let before = refused();
                    ERRNO.set(errno);
                    EVERY.set(every);
                    let tasks: Vec<_> = (0..4).flat_map(|_| both_ways(keeps)).collect();
                    for task in tasks {
                        tokio::time::timeout(std::time::Duration::from_secs(10), task)
                            .await
                            .expect("in time")
                            .expect("no panic");
                    }
                    EVERY.set(0);
                    let counts = refusals.contains(&errno);
                    assert_eq!(refused() > before, counts, "{errno}, every {every}");
                });
            }
        }
    }

    fn both_ways(keep_ancillary: bool) -> [tokio::task::JoinHandle<()>; 2] {
        let options = Options::new().submission(Submission::Ring).keep_ancillary(keep_ancillary);
        let (a, b) = options.backend(Selection::Uring).pair().unwrap();
        [a, b].map(|socket| tokio::spawn(count(socket)))
    }

    async fn count(socket: UnixSeqpacket) {
        for number in 0..100_u32 {
            assert_eq!(socket.send(&number.to_ne_bytes()).await.unwrap(), 4);
            let mut message = [0; 8];
            assert_eq!(socket.recv(&mut message).await.unwrap(), 4);
            assert_eq!(message[..4], number.to_ne_bytes());
        }
        assert!(!matches!(socket.try_recv(&mut [0; 8]), Ok(1..)));
    }
}
