//! Which engine a socket runs on, and the only places that ask.
//!
//! What a backend supplies, as inherent methods of its `Socket` and `Listener` (no trait: a
//! signature that drifts does not compile here):
//!
//! - `new(fd)` in the current runtime, of a non-blocking descriptor; `fd`, `into_fd`;
//! - `send`, `send_message`, `recv`, `recv_message` and their owned forms: cancel safe, served in
//!   the order of their first poll, paying tokio's cooperative budget;
//! - `poll_*`, `try_*`, `ready`: never an operation in flight; a direction that somebody uses or
//!   waits for counts as not ready, and whoever waits for it is woken when it settles.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, ready};

use filedesc::FileDesc;
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};

use crate::MessageInfo;
use crate::ancillary::{AncillaryBuffer, AncillaryMessageReader};
use crate::buffer::{Parts, PartsMut, Scatter};
use crate::epoll;
use crate::outgoing::Outgoing;
use crate::stream::Filler;
use crate::sys::Received;
use crate::uring;
use crate::uring::probe::{UringSupport, explain, is_available, probe};

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
    /// io_uring: messages are completions.
    Uring,
    /// epoll through tokio's I/O driver: readiness, then a system call.
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
    /// The best that can be had, unless `TOKIO_SEQPACKET_BACKEND` names one. Where rings are denied,
    /// whether they still are is asked once a second at most.
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

/// The operators' switch. Read once.
const VARIABLE: &str = "TOKIO_SEQPACKET_BACKEND";

fn from_environment() -> io::Result<Selection> {
    static VALUE: OnceLock<Result<Selection, String>> = OnceLock::new();
    let parsed = VALUE.get_or_init(|| match std::env::var_os(VARIABLE) {
        None => Ok(Selection::Auto),
        Some(value) => match value.to_str() {
            Some("auto" | "") => Ok(Selection::Auto),
            Some("uring") => Ok(Selection::Uring),
            Some("epoll") => Ok(Selection::Epoll),
            _ => Err(format!("{VARIABLE}={} is not one of auto, uring, epoll", value.display())),
        },
    });
    match parsed {
        Ok(selection) => Ok(*selection),
        Err(what) => Err(io::Error::new(io::ErrorKind::InvalidInput, what.clone())),
    }
}

/// A decision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice {
    backend: Backend,
    /// io_uring was not asked for: where it cannot be had, epoll will do.
    may_fall_back: bool,
}

impl Choice {
    /// For sockets that a listener accepts.
    pub(crate) fn as_listener(self) -> Self {
        Self { may_fall_back: true, ..self }
    }
}

/// Decide. An explicit wish that cannot be met is an error, never a silent fallback.
pub(crate) fn select(selection: Selection) -> io::Result<Choice> {
    let (selection, asked_by) = match selection {
        Selection::Auto => (from_environment()?, VARIABLE),
        explicit => (explicit, "the program"),
    };
    let epoll = Choice { backend: Backend::Epoll, may_fall_back: false };
    let uring = |may_fall_back| Choice { backend: Backend::Uring, may_fall_back };
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

/// Say why a ring that was asked for could not be had.
fn no_ring(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(_) => io::Error::new(
            io::ErrorKind::Unsupported,
            UringSupport::Unavailable(explain(&error)).to_string(),
        ),
        None => error,
    }
}

#[derive(Debug)]
pub(crate) enum Socket {
    /// In a box, or every socket on io_uring would be as large.
    Epoll(Box<epoll::Socket>),
    Uring(uring::Socket),
}

/// Listening is readiness and `accept(2)` on both backends; the accepted sockets differ.
#[derive(Debug)]
pub(crate) struct Listener {
    inner: epoll::Listener,
    choice: Choice,
}

/// The same call on whichever it is.
macro_rules! on {
    ($this:expr, $inner:ident => $call:expr) => {
        match $this {
            Self::Epoll($inner) => $call,
            Self::Uring($inner) => $call,
        }
    };
}

/// A send in line, polled by hand.
pub(crate) enum Waiting<'a> {
    Epoll(epoll::Waiting<'a>),
    Uring(uring::Sending<'a>),
}

impl Waiting<'_> {
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let (sent, _payload) = ready!(on!(self, waiting => waiting.poll(cx)));
        Poll::Ready(sent)
    }
}

/// A call that idle connections wait in. An `async fn` that awaits one of two would keep its arguments
/// besides.
pub(crate) enum Call<E, U> {
    Epoll(E),
    Uring(U),
}

pub(crate) type Recv<'a> = Call<epoll::Recv<'a>, uring::Recv<'a>>;

impl<E, U> Future for Call<E, U>
where
    E: Future + Unpin,
    U: Future<Output = E::Output> + Unpin,
{
    type Output = E::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<E::Output> {
        match self.get_mut() {
            Self::Epoll(call) => Pin::new(call).poll(cx),
            Self::Uring(call) => Pin::new(call).poll(cx),
        }
    }
}

impl Socket {
    pub(crate) fn new(choice: Choice, fd: OwnedFd) -> io::Result<Self> {
        let fd = match choice.backend {
            Backend::Epoll => fd,
            Backend::Uring => match uring::Socket::new(fd) {
                Ok(socket) => return Ok(Self::Uring(socket)),
                Err((error, fd)) if choice.may_fall_back => {
                    crate::events::fell_back(&error);
                    fd
                }
                Err((error, _)) => return Err(no_ring(error)),
            },
        };
        epoll::Socket::new(fd).map(|socket| Self::Epoll(Box::new(socket)))
    }

    pub(crate) fn backend(&self) -> Backend {
        match self {
            Self::Epoll(_) => Backend::Epoll,
            Self::Uring(_) => Backend::Uring,
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        on!(self, socket => socket.fd())
    }

    /// A duplicate of the descriptor, registered for readiness.
    pub(crate) fn register_duplicate(&self) -> io::Result<AsyncFd<FileDesc>> {
        on!(self, socket => socket.register_duplicate())
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        on!(self, socket => socket.into_fd())
    }

    pub(crate) async fn send(&self, message: &[u8]) -> io::Result<usize> {
        on!(self, socket => socket.send(message).await)
    }

    pub(crate) async fn send_message(
        &self,
        message: &[IoSlice<'_>],
        control: &[u8],
    ) -> io::Result<usize> {
        on!(self, socket => socket.send_message(message, control).await)
    }

    pub(crate) async fn send_owned<P: Parts>(
        &self,
        parts: P,
        ancillary: AncillaryBuffer,
    ) -> (io::Result<usize>, P, AncillaryBuffer) {
        on!(self, socket => socket.send_owned(parts, ancillary).await)
    }

    pub(crate) async fn send_many(
        &self,
        call: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> Result<io::Result<usize>, Option<Box<Outgoing>>> {
        on!(self, socket => socket.send_many(call).await)
    }

    /// A send that stands in line from its first poll on, and leaves it when dropped.
    pub(crate) fn wait(&self, payload: Box<Outgoing>) -> Waiting<'_> {
        match self {
            Self::Epoll(socket) => Waiting::Epoll(socket.wait(payload)),
            Self::Uring(socket) => Waiting::Uring(socket.wait(payload)),
        }
    }

    pub(crate) async fn recv_many(&self, filler: &mut Filler<'_>) -> io::Result<()> {
        on!(self, socket => socket.recv_many(filler).await)
    }

    pub(crate) fn poll_recv_many(
        &self,
        cx: &mut Context<'_>,
        filler: &mut Filler<'_>,
    ) -> Poll<io::Result<()>> {
        on!(self, socket => socket.poll_recv_many(cx, filler))
    }

    pub(crate) async fn recv_batch(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        infos: &mut Vec<MessageInfo>,
    ) -> io::Result<()> {
        on!(self, socket => socket.recv_batch(buffers, infos).await)
    }

    pub(crate) fn recv<'a>(&'a self, buffer: &'a mut [u8]) -> Recv<'a> {
        match self {
            Self::Epoll(socket) => Call::Epoll(socket.recv(buffer)),
            Self::Uring(socket) => Call::Uring(socket.recv(buffer)),
        }
    }

    pub(crate) fn recv_message<'a>(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        control: &'a mut [u8],
    ) -> impl Future<Output = io::Result<(Received, AncillaryMessageReader<'a>)>> {
        match self {
            Self::Epoll(socket) => Call::Epoll(socket.recv_message(buffers, control)),
            Self::Uring(socket) => Call::Uring(socket.recv_message(buffers, control)),
        }
    }

    pub(crate) async fn recv_owned<P: PartsMut>(
        &self,
        parts: Scatter<P>,
        ancillary: Option<&mut AncillaryBuffer>,
    ) -> (io::Result<Received>, P) {
        on!(self, socket => socket.recv_owned(parts, ancillary).await)
    }

    pub(crate) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        message: &[u8],
    ) -> Poll<io::Result<usize>> {
        on!(self, socket => socket.poll_send(cx, message))
    }

    pub(crate) fn poll_send_message(
        &self,
        cx: &mut Context<'_>,
        message: &[IoSlice<'_>],
        control: &[u8],
    ) -> Poll<io::Result<usize>> {
        on!(self, socket => socket.poll_send_message(cx, message, control))
    }

    pub(crate) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        on!(self, socket => socket.poll_recv(cx, buffer))
    }

    pub(crate) fn poll_recv_message<'a>(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        control: &'a mut [u8],
    ) -> Poll<io::Result<(Received, AncillaryMessageReader<'a>)>> {
        on!(self, socket => socket.poll_recv_message(cx, buffers, control))
    }

    pub(crate) fn try_send(&self, message: &[u8]) -> io::Result<usize> {
        on!(self, socket => socket.try_send(message))
    }

    pub(crate) fn try_send_message(
        &self,
        message: &[IoSlice<'_>],
        control: &[u8],
    ) -> io::Result<usize> {
        on!(self, socket => socket.try_send_message(message, control))
    }

    pub(crate) fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        on!(self, socket => socket.try_recv(buffer))
    }

    pub(crate) fn try_recv_message<'a>(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        control: &'a mut [u8],
    ) -> io::Result<(Received, AncillaryMessageReader<'a>)> {
        on!(self, socket => socket.try_recv_message(buffers, control))
    }

    pub(crate) fn try_send_owned<P: Parts>(
        &self,
        parts: &P,
        ancillary: &AncillaryBuffer,
    ) -> io::Result<usize> {
        on!(self, socket => socket.try_send_owned(parts, ancillary))
    }

    pub(crate) fn try_recv_owned<P: PartsMut>(
        &self,
        parts: Scatter<P>,
        ancillary: Option<&mut AncillaryBuffer>,
    ) -> (io::Result<Received>, P) {
        on!(self, socket => socket.try_recv_owned(parts, ancillary))
    }

    pub(crate) fn try_peek(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<Received> {
        on!(self, socket => socket.try_peek(buffers))
    }

    /// Whether nothing would be lost if the descriptor were taken away now.
    pub(crate) fn is_settled(&self) -> bool {
        on!(self, socket => socket.is_settled())
    }

    pub(crate) async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        on!(self, socket => socket.ready(interest).await)
    }

    pub(crate) fn poll_ready(
        &self,
        cx: &mut Context<'_>,
        interest: Interest,
    ) -> Poll<io::Result<()>> {
        on!(self, socket => socket.poll_ready(cx, interest))
    }
}

impl Listener {
    pub(crate) fn new(mut choice: Choice, fd: OwnedFd) -> io::Result<Self> {
        if choice.backend == Backend::Uring
            && let Err(error) = uring::Socket::check()
        {
            if !choice.may_fall_back {
                return Err(no_ring(error));
            }
            crate::events::fell_back(&error);
            choice.backend = Backend::Epoll;
        }
        Ok(Self { inner: epoll::Listener::new(fd)?, choice: choice.as_listener() })
    }

    /// What accepted sockets run on.
    pub(crate) fn choice(&self) -> Choice {
        self.choice
    }

    pub(crate) fn backend(&self) -> Backend {
        self.choice.backend
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.inner.fd()
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.inner.into_fd()
    }

    pub(crate) async fn accept(&self) -> io::Result<OwnedFd> {
        self.inner.accept().await
    }

    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<OwnedFd>> {
        self.inner.poll_accept(cx)
    }
}
