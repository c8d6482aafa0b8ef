//! Which backend a socket runs on, which one is asked for, and how io_uring submits.

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
