//! Which backend a socket runs on, which one is asked for, and how io_uring submits.

/// Names what a socket runs on.
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
    /// A system call for each operation, or under load one `io_uring_enter(2)` for many. Waits as epoll does.
    Uring,
    /// A system call for each operation. tokio's I/O driver (epoll) wakes an operation that has to wait.
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

/// Says which [`Backend`] a socket shall run on.
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
    /// The best that is available, unless `TOKIO_SEQPACKET_BACKEND` names one.
    ///
    /// A denial of io_uring by a filter is remembered for the life of the process. What may change is asked again: a
    /// sysctl once a second at most, an exhausted limit ten times a second.
    #[default]
    Auto,
    /// io_uring, or an error that gives the reason.
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

/// Says how a socket on io_uring submits its operations. It has no effect on epoll.
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
    /// By load and by measured speed.
    ///
    /// A worker whose tasks have enough operations for a batch makes them in batches or by system calls. Both ways are
    /// timed in turns. The slower one is used for a few percent of the operations at first, and for fewer later.
    #[default]
    Adaptive,
    /// Through the ring whatever the load, if called on a worker of the socket's runtime.
    ///
    /// The first poll of an operation queues it for the next batch, and is pending. Some operations are system calls in any
    /// case: sends over 4 KiB or with ancillary data, and receives behind a large message.
    Ring,
    /// Always by system calls.
    Direct,
}
