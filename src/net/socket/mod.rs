//! [`UnixSeqpacket`]: the public API of a connected socket.
#![expect(
    clippy::manual_async_fn,
    reason = "calls with owned buffers say that they are Send: of an async fn the compiler cannot tell, \
              where it holds associated types of a `&'static str`"
)]

pub(crate) mod exclusive;
mod peek;
mod peer;
mod properties;
pub(crate) mod split;
pub(crate) mod split_owned;
mod try_calls;

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::OnceLock;
use std::task::{Context, Poll, ready};

use filedesc::FileDesc;
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};
use tokio_uring::BufResult;
use tokio_uring::buf::{BoundedBuf, BoundedBufMut};

use crate::ancillary::{AncillaryBuffer, AncillaryMessageReader, AncillaryMessageWriter};
use crate::backend::{self, Backend, Bytes, Choice, Plain, Receive, Sink};
use crate::buf::owned::{self, Capacity, One, Parts, PartsMut, Scatter};
use crate::common::policy::COPY_MAX;
use crate::common::trace::Span;
use crate::net::messages::Messages;
use crate::net::messages::MessagesOptions;
use crate::net::options::Options;
use crate::net::send_batch::SendBatch;
use crate::net::send_error::refused_send;
use crate::net::socket::exclusive::Exclusive;
use crate::net::socket::split::ReadHalf;
use crate::net::socket::split::WriteHalf;
use crate::sys;
use crate::types::message_info::MessageInfo;
use crate::types::ucred::UCred;

/// A connected Unix seqpacket socket.
///
/// Any number of tasks may send and receive through `&self`. Dropping the socket closes it.
///
/// # Which call to use
///
/// - `send`, `recv` and their vectored and ancillary forms borrow their buffers, as in
///   tokio-seqpacket.
/// - `send_owned`, `recv_owned` and their forms take the buffer and give it back with the result.
///   They say more about a message ([`MessageInfo`]).
/// - `try_*` return `WouldBlock` instead of waiting; `poll_*` are for hand-written futures.
/// - `peek` and its forms look at the next message and leave it where it is.
/// - [`into_split`](Self::into_split) makes halves that can go to different tasks, where the drop of
///   the writing half is to mean the end. Without that wish, an `Arc` of the socket will do.
///
/// # Errors common to all receive calls
/// - `ECONNRESET` once, if the peer closed while messages for it were unread. Messages that it had
///   sent, and then end of stream, still follow. A send can take this error instead.
/// - `WouldBlock` from `try_*`.
///
/// # Errors common to all send calls
/// - `BrokenPipe` if the peer closed or shut down. No signal is raised.
/// - `InvalidInput` naming the limit for a message larger than the send buffer allows, and for more
///   than 253 file descriptors. Nothing is sent.
/// - `EBADF`, `EPERM`, `ETOOMANYREFS` for ancillary data, see `unix(7)`. `EPERM` also where the peer takes no descriptors
///   ([`set_pass_rights`](Self::set_pass_rights)).
///
/// # Errors common to all calls
/// - `Other` once the runtime in which the socket was made is gone.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use tokio_seqpacket::{UnixSeqpacket, UnixSeqpacketListener};
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("service.sock");
/// let listener = UnixSeqpacketListener::bind(&path)?;
/// let client = UnixSeqpacket::connect(&path).await?;
/// let server = listener.accept().await?;
///
/// client.send(b"question").await?;
/// let mut buffer = [0; 64];
/// let len = server.recv(&mut buffer).await?;
/// assert_eq!(&buffer[..len], b"question");
/// println!("{:?} on {}", server.peer_cred()?, server.backend());
///
/// drop(client);
/// assert_eq!(server.recv(&mut buffer).await?, 0);
/// # Ok(()) }
/// ```
pub struct UnixSeqpacket {
    pub(crate) inner: backend::Socket,
    /// Made when something of it is first used.
    extras: OnceLock<Box<Extras>>,
    #[expect(dead_code, reason = "ends with the socket")]
    span: Span,
}

/// What few sockets need.
#[derive(Debug, Default)]
struct Extras {
    exclusive: Exclusive,
    async_fd: OnceLock<AsyncFd<FileDesc>>,
}

/// A receive into one buffer. By hand, for it is what idle connections wait in: as an `async fn` it
/// would take twice the memory.
enum Receiving<'a, S> {
    New(&'a UnixSeqpacket, Option<S>),
    /// Waits for the end of a stream.
    Behind(Pin<Box<dyn Future<Output = ()> + Send + 'a>>, &'a UnixSeqpacket, Option<S>),
    Call(Receive<'a, S>),
    Done,
}

impl<S: Sink> Receiving<'_, S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<S::Output>> {
        loop {
            let (socket, sink) = match self {
                Self::New(socket, sink) => match socket.stream() {
                    Some(stream) => {
                        *self = Self::Behind(Box::pin(stream.freed()), socket, sink.take());
                        continue;
                    }
                    None => (socket, sink),
                },
                Self::Behind(end, socket, sink) => {
                    ready!(end.as_mut().poll(cx));
                    (socket, sink)
                }
                Self::Call(call) => {
                    let received = ready!(Pin::new(call).poll(cx));
                    *self = Self::Done;
                    return Poll::Ready(received);
                }
                Self::Done => panic!("a receive is not polled after completion"),
            };
            *self = Self::Call(socket.inner.receive(sink.take().expect("taken once")));
        }
    }
}

/// Into a buffer that the caller lends.
struct Recv<'a>(Receiving<'a, Bytes<'a>>);

/// Into a buffer that was given away. Whatever the buffer is, this is compiled here, with all that it calls: in a generic
/// call, which is compiled in the caller's crate, nothing of it would be inlined.
struct RecvPlain<'a, 'b>(Receiving<'a, Plain<'a, 'b>>);

impl Future for Recv<'_> {
    type Output = io::Result<usize>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.0.poll(cx)
    }
}

impl Future for RecvPlain<'_, '_> {
    type Output = io::Result<MessageInfo>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<MessageInfo>> {
        self.0.poll(cx)
    }
}

impl UnixSeqpacket {
    pub(crate) fn on(choice: Choice, fd: OwnedFd) -> io::Result<Self> {
        let inner = backend::Socket::on(choice, fd)?;
        let span = Span::socket(inner.backend(), inner.fd());
        Ok(Self { inner, extras: OnceLock::new(), span })
    }

    /// Connect to a listener.
    ///
    /// A leading NUL byte makes the address a name in the abstract namespace. While the listener's
    /// backlog is full this waits, trying again every 1 to 32 ms, until the connection is queued or
    /// refused. Cancel safe. Where a test has paused tokio's clock, these waits are tokio's, in its time.
    ///
    /// # Errors
    /// `InvalidInput` for a path over 108 bytes, an empty one, or one with a NUL byte inside;
    /// `ECONNREFUSED` if nobody listens, `ENOENT`, `EACCES`, `EPROTOTYPE` as in `connect(2)`.
    /// Outside a runtime, or in one without its I/O driver.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::{UnixSeqpacket, UnixSeqpacketListener};
    ///
    /// # let name = format!("\0seqpacket-example-{}", std::process::id());
    /// // A name in the abstract namespace; a path of a file works alike.
    /// let _listener = UnixSeqpacketListener::bind(&name)?;
    /// let socket = UnixSeqpacket::connect(&name).await?;
    /// assert!(socket.local_addr()?.is_unnamed());
    /// # Ok(()) }
    /// ```
    pub async fn connect<P: AsRef<Path>>(address: P) -> io::Result<Self> {
        Options::new().connect(address).await
    }

    /// Connect to a listener, waiting on this thread while its backlog is full. See
    /// [`Options::connect_blocking`].
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    ///
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::UnixSeqpacket;
    ///
    /// let runtime = tokio::runtime::Runtime::new()?;
    /// let _inside = runtime.enter();
    /// let socket = UnixSeqpacket::connect_blocking("/run/foo.sock")?;
    /// # drop(socket); Ok(()) }
    /// ```
    pub fn connect_blocking<P: AsRef<Path>>(address: P) -> io::Result<Self> {
        Options::new().connect_blocking(address)
    }

    /// Two connected sockets.
    ///
    /// # Errors
    /// What `socketpair(2)` says; outside a runtime, or in one without its I/O driver.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"there").await?;
    /// b.send(b"and back").await?;
    /// assert_eq!(b.recv(&mut [0; 16]).await?, 5);
    /// assert_eq!(a.recv(&mut [0; 16]).await?, 8);
    /// # Ok(()) }
    /// ```
    pub fn pair() -> io::Result<(Self, Self)> {
        Options::new().pair()
    }

    /// What it runs on.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, _b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// println!("runs on {}", a.backend());
    /// # Ok(()) }
    /// ```
    pub fn backend(&self) -> Backend {
        self.inner.backend()
    }

    /// Borrow the socket twice. All calls work through `&self`, so this is never needed; it is here
    /// for code written for the first releases of tokio-seqpacket.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (socket, peer) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let (reader, writer) = socket.split();
    /// writer.send(b"question").await?;
    /// peer.send(b"answer").await?;
    /// assert_eq!(reader.recv(&mut [0; 16]).await?, 6);
    /// # Ok(()) }
    /// ```
    pub fn split(&self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        (ReadHalf(self), WriteHalf(self))
    }

    /// The socket as registered with tokio's I/O driver, to wait for readiness and make system calls
    /// of your own.
    ///
    /// This is a duplicate of the descriptor, registered when it is first asked for; from then on every
    /// message costs an event. On io_uring, system calls of your own are exact only while no receive waits
    /// or has been dropped unfinished: a message may have been received for the next call here.
    ///
    /// # Panics
    /// If the duplicate cannot be made or registered: no descriptor is left, or the runtime is gone.
    /// [`readable`](Self::readable) and [`writable`](Self::writable) return an error there.
    ///
    /// ```no_run
    /// # async fn f() -> std::io::Result<()> {
    /// let socket = tokio_seqpacket::UnixSeqpacket::connect("/run/foo.sock").await?;
    /// socket.as_async_fd().writable().await?.retain_ready();
    /// # Ok(()) }
    /// ```
    pub fn as_async_fd(&self) -> &AsyncFd<FileDesc> {
        self.extras().async_fd.get_or_init(|| match self.inner.register_duplicate() {
            Ok(registered) => registered,
            Err(error) => panic!("the socket cannot be registered for readiness: {error}"),
        })
    }

    /// The credentials of the process that connected or made the pair, or that listened, as they
    /// were then (`SO_PEERCRED`): its effective user and group id. Not necessarily of the process that
    /// holds the other end now; see [`guide::credentials`](crate::guide::credentials).
    ///
    /// # Errors
    /// What `getsockopt(2)` says.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, _b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// // Both ends were made by this process.
    /// assert_eq!(a.peer_cred()?.pid(), Some(std::process::id() as i32));
    /// # Ok(()) }
    /// ```
    pub fn peer_cred(&self) -> io::Result<UCred> {
        UCred::from_socket_peer(self)
    }

    /// Take the pending error of the socket (`SO_ERROR`), if there is one.
    ///
    /// # Errors
    /// What `getsockopt(2)` says.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"never read").await?;
    /// drop(b);
    /// let reset = a.take_error()?.expect("the peer has closed with a message unread");
    /// assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
    /// assert!(a.take_error()?.is_none());
    /// # Ok(()) }
    /// ```
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        sys::take_error(self.as_fd())
    }

    /// Shut down reading, writing or both, for all duplicates of the socket in all processes. Calls
    /// that wait return; see `shutdown(2)`. After `Shutdown::Write` a send that waits on a full queue returns only
    /// once the peer has made room in it or has gone: the kernel reports nothing before.
    ///
    /// # Errors
    /// What `shutdown(2)` says.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"the last").await?;
    /// a.shutdown(std::net::Shutdown::Write)?;
    /// assert_eq!(b.recv(&mut [0; 16]).await?, 8);
    /// assert_eq!(b.recv(&mut [0; 16]).await?, 0);
    /// b.send(b"still heard").await?;
    /// assert_eq!(a.recv(&mut [0; 16]).await?, 11);
    /// # Ok(()) }
    /// ```
    pub fn shutdown(&self, how: std::net::Shutdown) -> io::Result<()> {
        sys::shutdown(self.as_fd(), how)
    }

    // ----- send -----

    /// Send a message.
    ///
    /// Returns the number of bytes, which is all of them: a message is sent whole or not at all.
    /// Waits while the peer's queue is full; sends on one socket go out in the order in which they
    /// were first polled.
    ///
    /// # Cancel safety
    /// A future that is dropped has sent the message whole or never will.
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// assert_eq!(a.send(b"message").await?, 7);
    /// assert_eq!(b.recv(&mut [0; 16]).await?, 7);
    /// # Ok(()) }
    /// ```
    pub fn send<'a>(&'a self, buffer: &'a [u8]) -> impl Future<Output = io::Result<usize>> + Send {
        let mut call = self.inner.send(buffer);
        // As an `async fn` it would take a third more memory.
        poll_fn(move |cx| {
            let sent = ready!(Pin::new(&mut call).poll(cx));
            Poll::Ready(self.explained(sent, || buffer.len(), &[]))
        })
    }

    /// Send a message gathered from several buffers. Else as [`send`](Self::send).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::IoSlice;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send_vectored(&[IoSlice::new(b"head"), IoSlice::new(b"body")]).await?;
    /// // One message.
    /// assert_eq!(b.recv(&mut [0; 16]).await?, 8);
    /// # Ok(()) }
    /// ```
    pub async fn send_vectored(&self, buffer: &[IoSlice<'_>]) -> io::Result<usize> {
        let sent = self.inner.send_message(buffer, &[]).await;
        self.explained(sent, || total(buffer), &[])
    }

    /// Send a message with ancillary data. Else as [`send`](Self::send).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::ancillary::AncillaryMessageWriter;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let file = std::fs::File::open("/dev/null")?;
    /// let mut control = [0; 32];
    /// let mut ancillary = AncillaryMessageWriter::new(&mut control);
    /// ancillary.add_fds(&[&file])?;
    /// a.send_with_ancillary(b"a file", &mut ancillary).await?;
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub async fn send_with_ancillary(
        &self,
        buffer: &[u8],
        ancillary: &mut AncillaryMessageWriter<'_>,
    ) -> io::Result<usize> {
        self.send_vectored_with_ancillary(&[IoSlice::new(buffer)], ancillary).await
    }

    /// Send a message gathered from several buffers, with ancillary data. Else as
    /// [`send`](Self::send).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::IoSlice;
    /// use tokio_seqpacket::ancillary::AncillaryMessageWriter;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let file = std::fs::File::open("/dev/null")?;
    /// let mut control = [0; 32];
    /// let mut ancillary = AncillaryMessageWriter::new(&mut control);
    /// ancillary.add_fds(&[&file])?;
    /// let parts = [IoSlice::new(b"a"), IoSlice::new(b" file")];
    /// a.send_vectored_with_ancillary(&parts, &mut ancillary).await?;
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub async fn send_vectored_with_ancillary(
        &self,
        buffer: &[IoSlice<'_>],
        ancillary: &mut AncillaryMessageWriter<'_>,
    ) -> io::Result<usize> {
        let sent = self.inner.send_message(buffer, ancillary.control()).await;
        self.explained(sent, || total(buffer), ancillary.control())
    }

    /// Send a message from an owned buffer: its initialised bytes, within its bounds. The buffer
    /// comes back with the result. Else as [`send`](Self::send).
    ///
    /// A future that is dropped drops the buffer, at the latest when the send has settled. That can be
    /// on another thread, so a buffer that is not `Send` does not compile:
    ///
    /// ```compile_fail,E0277
    /// # use tokio_seqpacket::{UnixSeqpacket, buf::IoBuf};
    /// struct Local(std::rc::Rc<[u8]>);
    /// # unsafe impl IoBuf for Local {
    /// #     fn stable_ptr(&self) -> *const u8 { self.0.as_ptr() }
    /// #     fn bytes_init(&self) -> usize { self.0.len() }
    /// #     fn bytes_total(&self) -> usize { self.0.len() }
    /// # }
    /// # async fn f(socket: &UnixSeqpacket) {
    /// socket.send_owned(Local([1, 2, 3].into())).await.0.unwrap();
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let (sent, buffer) = a.send_owned(b"message".to_vec()).await;
    /// assert_eq!(sent?, 7);
    /// assert_eq!(buffer, b"message");
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn send_owned<B>(&self, buffer: B) -> impl Future<Output = BufResult<usize, B>> + Send
    where
        B: BoundedBuf<Buf: Send, Bounds: Send> + Send,
    {
        async move {
            let (slice, bounds) = owned::lend(buffer);
            let len = owned::filled(&slice).len();
            let (sent, slice) = if len <= COPY_MAX {
                // A copy is cheaper than giving the buffer to a send that waits, and needs no allocation.
                (self.inner.send(owned::filled(&slice)).await, slice)
            } else {
                let message = owned::filled(&slice);
                match self.inner.send_directly(move |fd| sys::send(fd, message)).await {
                    Ok(sent) => (sent, slice),
                    Err(waits) => {
                        let waiting =
                            self.inner.wait_owned(One(slice), AncillaryBuffer::new(), waits);
                        // In a box: every send would have room for this.
                        let (sent, One(slice), _) = Box::pin(waiting).await;
                        (sent, slice)
                    }
                }
            };
            (self.explained(sent, || len, &[]), owned::restore(slice, bounds))
        }
    }

    /// Send a message from an owned buffer, with ancillary data: the peer gets duplicates of the
    /// file descriptors. Else as [`send_owned`](Self::send_owned).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::ancillary::AncillaryBuffer;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let mut ancillary = AncillaryBuffer::new();
    /// ancillary.push_fd(std::fs::File::open("/dev/null")?)?;
    /// let (sent, _bytes, ancillary) = a.send_owned_with_ancillary("a file", ancillary).await;
    /// sent?;
    /// // The peer has a duplicate, this one is still open.
    /// assert_eq!(ancillary.fds().len(), 1);
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn send_owned_with_ancillary<B>(
        &self,
        buffer: B,
        ancillary: AncillaryBuffer,
    ) -> impl Future<Output = (io::Result<usize>, B, AncillaryBuffer)> + Send
    where
        B: BoundedBuf<Buf: Send, Bounds: Send> + Send,
    {
        async move {
            let (slice, bounds) = owned::lend(buffer);
            let (sent, One(slice), ancillary) = self.send_parts(One(slice), ancillary).await;
            (sent, owned::restore(slice, bounds), ancillary)
        }
    }

    /// Send a message gathered from several owned buffers. Else as [`send_owned`](Self::send_owned).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let (sent, parts) = a.send_owned_vectored(vec![b"head".to_vec(), b"body".to_vec()]).await;
    /// assert_eq!((sent?, parts.len()), (8, 2));
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn send_owned_vectored<B>(
        &self,
        buffers: Vec<B>,
    ) -> impl Future<Output = BufResult<usize, Vec<B>>> + Send
    where
        B: BoundedBuf<Buf: Send, Bounds: Send> + Send,
    {
        async move {
            let (slices, lent) = owned::lend_all(buffers);
            let (sent, slices, _) = self.send_parts(slices, AncillaryBuffer::new()).await;
            (sent, lent.restore(slices))
        }
    }

    /// Send a message gathered from several owned buffers, with ancillary data. Else as
    /// [`send_owned`](Self::send_owned).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::ancillary::AncillaryBuffer;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let mut ancillary = AncillaryBuffer::new();
    /// ancillary.push_fd(std::fs::File::open("/dev/null")?)?;
    /// let parts = vec!["a", " file"];
    /// let (sent, _parts, _ancillary) = a.send_owned_vectored_with_ancillary(parts, ancillary).await;
    /// assert_eq!(sent?, 6);
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn send_owned_vectored_with_ancillary<B>(
        &self,
        buffers: Vec<B>,
        ancillary: AncillaryBuffer,
    ) -> impl Future<Output = (io::Result<usize>, Vec<B>, AncillaryBuffer)> + Send
    where
        B: BoundedBuf<Buf: Send, Bounds: Send> + Send,
    {
        async move {
            let (slices, lent) = owned::lend_all(buffers);
            let (sent, slices, ancillary) = self.send_parts(slices, ancillary).await;
            (sent, lent.restore(slices), ancillary)
        }
    }

    async fn send_parts<P: Parts>(
        &self,
        parts: P,
        ancillary: AncillaryBuffer,
    ) -> (io::Result<usize>, P, AncillaryBuffer) {
        let (sent, parts, ancillary) = self.inner.send_owned(parts, ancillary).await;
        (self.explained(sent, || parts.total(), &[]), parts, ancillary)
    }

    /// Send a message if that is possible at once.
    ///
    /// # Errors
    /// `WouldBlock` if the peer's queue is full, or another task is sending or waits to send. Else
    /// see [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::ErrorKind;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let full = loop {
    ///     if let Err(error) = a.try_send(b"message") {
    ///         break error;
    ///     }
    /// };
    /// assert_eq!(full.kind(), ErrorKind::WouldBlock);
    /// assert_eq!(b.recv(&mut [0; 16]).await?, 7);
    /// # Ok(()) }
    /// ```
    pub fn try_send(&self, buffer: &[u8]) -> io::Result<usize> {
        self.explained(self.inner.try_send(buffer), || buffer.len(), &[])
    }

    /// Send a message gathered from several buffers, if that is possible at once.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::IoSlice;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// assert_eq!(a.try_send_vectored(&[IoSlice::new(b"head"), IoSlice::new(b"body")])?, 8);
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn try_send_vectored(&self, buffer: &[IoSlice<'_>]) -> io::Result<usize> {
        self.explained(self.inner.try_send_message(buffer, &[]), || total(buffer), &[])
    }

    /// Send a message with ancillary data, if that is possible at once.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::IoSlice;
    /// use tokio_seqpacket::ancillary::AncillaryMessageWriter;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let file = std::fs::File::open("/dev/null")?;
    /// let mut control = [0; 32];
    /// let mut ancillary = AncillaryMessageWriter::new(&mut control);
    /// ancillary.add_fds(&[&file])?;
    /// a.try_send_vectored_with_ancillary(&[IoSlice::new(b"a file")], &mut ancillary)?;
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn try_send_vectored_with_ancillary(
        &self,
        buffer: &[IoSlice<'_>],
        ancillary: &mut AncillaryMessageWriter<'_>,
    ) -> io::Result<usize> {
        let sent = self.inner.try_send_message(buffer, ancillary.control());
        self.explained(sent, || total(buffer), ancillary.control())
    }

    /// Send a message, or have this task woken when that may be possible.
    ///
    /// Nothing is in flight between two calls: a later call may come with other bytes. Only the last
    /// task that called is woken; while other tasks send, this waits for them.
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::future::poll_fn;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// assert_eq!(poll_fn(|cx| a.poll_send(cx, b"message")).await?, 7);
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn poll_send(&self, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let sent = ready!(self.inner.poll_send(cx, buffer));
        Poll::Ready(self.explained(sent, || buffer.len(), &[]))
    }

    /// Send a message gathered from several buffers. Else as [`poll_send`](Self::poll_send).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::future::poll_fn;
    /// use std::io::IoSlice;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let parts = [IoSlice::new(b"head"), IoSlice::new(b"body")];
    /// assert_eq!(poll_fn(|cx| a.poll_send_vectored(cx, &parts)).await?, 8);
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn poll_send_vectored(
        &self,
        cx: &mut Context<'_>,
        buffer: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = ready!(self.inner.poll_send_message(cx, buffer, &[]));
        Poll::Ready(self.explained(sent, || total(buffer), &[]))
    }

    /// Send a message with ancillary data. Else as [`poll_send`](Self::poll_send).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::future::poll_fn;
    /// use tokio_seqpacket::ancillary::AncillaryMessageWriter;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let file = std::fs::File::open("/dev/null")?;
    /// let mut control = [0; 32];
    /// let mut ancillary = AncillaryMessageWriter::new(&mut control);
    /// ancillary.add_fds(&[&file])?;
    /// poll_fn(|cx| a.poll_send_with_ancillary(cx, b"a file", &mut ancillary)).await?;
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn poll_send_with_ancillary(
        &self,
        cx: &mut Context<'_>,
        buffer: &[u8],
        ancillary: &mut AncillaryMessageWriter<'_>,
    ) -> Poll<io::Result<usize>> {
        self.poll_send_vectored_with_ancillary(cx, &[IoSlice::new(buffer)], ancillary)
    }

    /// Send a message gathered from several buffers, with ancillary data. Else as
    /// [`poll_send`](Self::poll_send).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::future::poll_fn;
    /// use std::io::IoSlice;
    /// use tokio_seqpacket::ancillary::AncillaryMessageWriter;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let file = std::fs::File::open("/dev/null")?;
    /// let mut control = [0; 32];
    /// let mut ancillary = AncillaryMessageWriter::new(&mut control);
    /// ancillary.add_fds(&[&file])?;
    /// let parts = [IoSlice::new(b"a"), IoSlice::new(b" file")];
    /// let send = poll_fn(|cx| a.poll_send_vectored_with_ancillary(cx, &parts, &mut ancillary));
    /// assert_eq!(send.await?, 6);
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn poll_send_vectored_with_ancillary(
        &self,
        cx: &mut Context<'_>,
        buffer: &[IoSlice<'_>],
        ancillary: &mut AncillaryMessageWriter<'_>,
    ) -> Poll<io::Result<usize>> {
        let sent = ready!(self.inner.poll_send_message(cx, buffer, ancillary.control()));
        Poll::Ready(self.explained(sent, || total(buffer), ancillary.control()))
    }

    // ----- receive -----

    /// Receive a message.
    ///
    /// Returns the number of bytes that were written into `buffer`; 0 for an empty message and for
    /// end of stream. What does not fit is lost, and file descriptors that came with the message are
    /// closed, without a sign. [`recv_message`](Self::recv_message) reports both;
    /// [`recv_owned`](Self::recv_owned) the first.
    ///
    /// # Cancel safety
    /// A future that is dropped loses nothing: the message goes to the next receive.
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"message").await?;
    /// let mut buffer = [0; 64];
    /// let len = b.recv(&mut buffer).await?;
    /// assert_eq!(&buffer[..len], b"message");
    /// drop(a);
    /// assert_eq!(b.recv(&mut buffer).await?, 0);
    /// # Ok(()) }
    /// ```
    pub fn recv<'a>(
        &'a self,
        buffer: &'a mut [u8],
    ) -> impl Future<Output = io::Result<usize>> + Send {
        Recv(Receiving::New(self, Some(Bytes(buffer))))
    }

    /// Receive a message scattered into several buffers. Else as [`recv`](Self::recv).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::IoSliceMut;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"headbody").await?;
    /// let (mut head, mut body) = ([0; 4], [0; 60]);
    /// let mut buffers = [IoSliceMut::new(&mut head), IoSliceMut::new(&mut body)];
    /// assert_eq!(b.recv_vectored(&mut buffers).await?, 8);
    /// assert_eq!((&head, &body[..4]), (b"head", &b"body"[..]));
    /// # Ok(()) }
    /// ```
    pub async fn recv_vectored(&self, buffer: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.stream_end().await;
        self.inner.recv_vectored(buffer).await
    }

    /// Receive a message with its ancillary data. Else as
    /// [`recv_vectored_with_ancillary`](Self::recv_vectored_with_ancillary).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::ancillary::OwnedAncillaryMessage;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// # let file = std::fs::File::open("/dev/null")?;
    /// # let mut control = [0; 32];
    /// # let mut writer = tokio_seqpacket::ancillary::AncillaryMessageWriter::new(&mut control);
    /// # writer.add_fds(&[&file])?;
    /// # a.send_with_ancillary(b"a file", &mut writer).await?;
    /// let (mut bytes, mut control) = ([0; 64], [0; 64]);
    /// let (len, ancillary) = b.recv_with_ancillary(&mut bytes, &mut control).await?;
    /// let mut files = Vec::new();
    /// for message in ancillary.into_messages() {
    ///     if let OwnedAncillaryMessage::FileDescriptors(fds) = message {
    ///         files.extend(fds.map(std::fs::File::from));
    ///     }
    /// }
    /// assert_eq!((len, files.len()), (6, 1));
    /// # Ok(()) }
    /// ```
    pub async fn recv_with_ancillary<'a>(
        &self,
        buffer: &mut [u8],
        ancillary_buffer: &'a mut [u8],
    ) -> io::Result<(usize, AncillaryMessageReader<'a>)> {
        self.recv_vectored_with_ancillary(&mut [IoSliceMut::new(buffer)], ancillary_buffer).await
    }

    /// Receive a message with its ancillary data.
    ///
    /// The reader owns the file descriptors that came with the message and closes those that are not
    /// taken; all are close-on-exec. It says whether ancillary data was cut. Else as
    /// [`recv`](Self::recv).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::IoSliceMut;
    /// use tokio_seqpacket::ancillary::OwnedAncillaryMessage;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// # let file = std::fs::File::open("/dev/null")?;
    /// # let mut control = [0; 32];
    /// # let mut writer = tokio_seqpacket::ancillary::AncillaryMessageWriter::new(&mut control);
    /// # writer.add_fds(&[&file])?;
    /// # a.send_with_ancillary(b"a file", &mut writer).await?;
    /// let (mut bytes, mut control) = ([0; 64], [0; 64]);
    /// let mut buffers = [IoSliceMut::new(&mut bytes)];
    /// let (len, ancillary) = b.recv_vectored_with_ancillary(&mut buffers, &mut control).await?;
    /// assert!(!ancillary.is_truncated());
    /// let mut files = Vec::new();
    /// for message in ancillary.into_messages() {
    ///     if let OwnedAncillaryMessage::FileDescriptors(fds) = message {
    ///         files.extend(fds.map(std::fs::File::from));
    ///     }
    /// }
    /// assert_eq!((len, files.len()), (6, 1));
    /// # Ok(()) }
    /// ```
    pub async fn recv_vectored_with_ancillary<'a>(
        &self,
        buffer: &mut [IoSliceMut<'_>],
        ancillary_buffer: &'a mut [u8],
    ) -> io::Result<(usize, AncillaryMessageReader<'a>)> {
        let (info, reader) = self.recv_message(buffer, ancillary_buffer).await?;
        Ok((info.bytes_read(), reader))
    }

    /// Receive a message with ancillary data into lent buffers, with all that is known of it: how long it
    /// was, whether it or its ancillary data was cut, and whether it is the end of the stream or an empty
    /// message.
    ///
    /// # Errors and cancel safety
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::IoSliceMut;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"twelve bytes").await?;
    /// let (mut buffer, mut control) = ([0; 8], [0; 64]);
    /// let (info, _) = b.recv_message(&mut [IoSliceMut::new(&mut buffer)], &mut control).await?;
    /// assert_eq!((info.bytes_read(), info.message_len(), info.truncated()), (8, 12, true));
    /// # Ok(()) }
    /// ```
    pub async fn recv_message<'a>(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        control: &'a mut [u8],
    ) -> io::Result<(MessageInfo, AncillaryMessageReader<'a>)> {
        self.stream_end().await;
        self.inner.recv_message(buffers, control).await
    }

    /// Receive a message into an owned buffer: from the start of its bounds, over what is in it. The
    /// buffer comes back with the result; it is marked as initialised as far as the message reached,
    /// so a vector that was longer keeps its length.
    ///
    /// [`MessageInfo`] tells whether the message was cut. Ancillary data is discarded, which it need not tell: see
    /// [`MessageInfo::ancillary_truncated`].
    ///
    /// # Cancel safety
    /// A future that is dropped loses no message: it goes to the next receive. The buffer is dropped
    /// with the future, at the latest when the receive has settled.
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"message").await?;
    /// let (received, buffer) = b.recv_owned(Vec::with_capacity(4)).await;
    /// let info = received?;
    /// assert_eq!(buffer, b"mess");
    /// assert!(info.truncated());
    /// assert_eq!((info.bytes_read(), info.message_len()), (4, 7));
    /// # Ok(()) }
    /// ```
    pub fn recv_owned<B>(&self, buffer: B) -> impl Future<Output = BufResult<MessageInfo, B>> + Send
    where
        B: BoundedBufMut<Buf: Send, Bounds: Send> + Send,
    {
        async move {
            let (mut slice, bounds) = owned::lend(buffer);
            let mut capacity = Capacity::of(&mut slice);
            let received = RecvPlain(Receiving::New(self, Some(Plain(&mut capacity)))).await;
            let written = capacity.written();
            owned::note_written(&mut slice, written);
            (received, owned::restore(slice, bounds))
        }
    }

    /// Receive a message into an owned buffer, with its ancillary data. Else as
    /// [`recv_owned`](Self::recv_owned).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::ancillary::AncillaryBuffer;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// # let ancillary = AncillaryBuffer::from_iter([std::fs::File::open("/dev/null")?.into()]);
    /// # a.send_owned_with_ancillary("a file", ancillary).await.0?;
    /// let (received, bytes, mut ancillary) =
    ///     b.recv_owned_with_ancillary(Vec::with_capacity(64), AncillaryBuffer::new()).await;
    /// assert_eq!((received?.bytes_read(), &bytes[..]), (6, &b"a file"[..]));
    /// assert_eq!(ancillary.take_fds().len(), 1);
    /// # Ok(()) }
    /// ```
    pub fn recv_owned_with_ancillary<B>(
        &self,
        buffer: B,
        mut ancillary: AncillaryBuffer,
    ) -> impl Future<Output = (io::Result<MessageInfo>, B, AncillaryBuffer)> + Send
    where
        B: BoundedBufMut<Buf: Send, Bounds: Send> + Send,
    {
        async move {
            let (slice, bounds) = owned::lend(buffer);
            let (received, One(slice)) = self.recv_parts(One(slice), Some(&mut ancillary)).await;
            (received, owned::restore(slice, bounds), ancillary)
        }
    }

    /// Receive a message scattered into several owned buffers. Else as
    /// [`recv_owned`](Self::recv_owned).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"headbody").await?;
    /// let parts = vec![Vec::with_capacity(4), Vec::with_capacity(60)];
    /// let (received, parts) = b.recv_owned_vectored(parts).await;
    /// assert_eq!(received?.bytes_read(), 8);
    /// assert_eq!(parts, [b"head", b"body"]);
    /// # Ok(()) }
    /// ```
    pub fn recv_owned_vectored<B>(
        &self,
        buffers: Vec<B>,
    ) -> impl Future<Output = BufResult<MessageInfo, Vec<B>>> + Send
    where
        B: BoundedBufMut<Buf: Send, Bounds: Send> + Send,
    {
        async move {
            let (slices, lent) = owned::lend_all(buffers);
            let (received, slices) = self.recv_parts(slices, None).await;
            (received, lent.restore(slices))
        }
    }

    /// Receive a message scattered into several owned buffers, with its ancillary data. Else as
    /// [`recv_owned`](Self::recv_owned).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::ancillary::AncillaryBuffer;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// # let ancillary = AncillaryBuffer::from_iter([std::fs::File::open("/dev/null")?.into()]);
    /// # a.send_owned_with_ancillary("a file", ancillary).await.0?;
    /// let parts = vec![Vec::with_capacity(2), Vec::with_capacity(60)];
    /// let (received, parts, ancillary) =
    ///     b.recv_owned_vectored_with_ancillary(parts, AncillaryBuffer::new()).await;
    /// received?;
    /// assert_eq!(parts, [&b"a "[..], b"file"]);
    /// assert_eq!(ancillary.fds().len(), 1);
    /// # Ok(()) }
    /// ```
    pub fn recv_owned_vectored_with_ancillary<B>(
        &self,
        buffers: Vec<B>,
        mut ancillary: AncillaryBuffer,
    ) -> impl Future<Output = (io::Result<MessageInfo>, Vec<B>, AncillaryBuffer)> + Send
    where
        B: BoundedBufMut<Buf: Send, Bounds: Send> + Send,
    {
        async move {
            let (slices, lent) = owned::lend_all(buffers);
            let (received, slices) = self.recv_parts(slices, Some(&mut ancillary)).await;
            (received, lent.restore(slices), ancillary)
        }
    }

    async fn recv_parts<P: PartsMut>(
        &self,
        parts: P,
        mut ancillary: Option<&mut AncillaryBuffer>,
    ) -> (io::Result<MessageInfo>, P) {
        if let Some(ancillary) = &mut ancillary {
            // Closing what the caller had in it can take a while: not under the lock.
            ancillary.clear();
        }
        self.stream_end().await;
        let mut scatter = Scatter::new(parts);
        let received = self.inner.recv_owned(&mut scatter, ancillary).await;
        (received, scatter.into_parts())
    }

    /// Receive a message if there is one.
    ///
    /// # Errors
    /// `WouldBlock` if there is none, or another task is receiving or waits to receive. Else see
    /// [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::ErrorKind;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let mut buffer = [0; 64];
    /// assert_eq!(b.try_recv(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
    /// a.send(b"message").await?;
    /// assert_eq!(b.try_recv(&mut buffer)?, 7);
    /// # Ok(()) }
    /// ```
    pub fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.without_stream()?;
        self.inner.try_recv(buffer)
    }

    /// Receive a message scattered into several buffers, if there is one.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::IoSliceMut;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"headbody").await?;
    /// let (mut head, mut body) = ([0; 4], [0; 60]);
    /// let mut buffers = [IoSliceMut::new(&mut head), IoSliceMut::new(&mut body)];
    /// assert_eq!(b.try_recv_vectored(&mut buffers)?, 8);
    /// # Ok(()) }
    /// ```
    pub fn try_recv_vectored(&self, buffer: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.without_stream()?;
        self.inner.try_recv_vectored(buffer)
    }

    /// Receive a message with its ancillary data, if there is one.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::IoSliceMut;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// # let file = std::fs::File::open("/dev/null")?;
    /// # let mut control = [0; 32];
    /// # let mut writer = tokio_seqpacket::ancillary::AncillaryMessageWriter::new(&mut control);
    /// # writer.add_fds(&[&file])?;
    /// # a.send_with_ancillary(b"a file", &mut writer).await?;
    /// let (mut bytes, mut control) = ([0; 64], [0; 64]);
    /// let mut buffers = [IoSliceMut::new(&mut bytes)];
    /// let (len, ancillary) = b.try_recv_vectored_with_ancillary(&mut buffers, &mut control)?;
    /// assert_eq!((len, ancillary.is_empty()), (6, false));
    /// # Ok(()) }
    /// ```
    pub fn try_recv_vectored_with_ancillary<'a>(
        &self,
        buffer: &mut [IoSliceMut<'_>],
        ancillary_buffer: &'a mut [u8],
    ) -> io::Result<(usize, AncillaryMessageReader<'a>)> {
        self.without_stream()?;
        let (info, reader) = self.inner.try_recv_message(buffer, ancillary_buffer)?;
        Ok((info.bytes_read(), reader))
    }

    /// Receive a message, or have this task woken when there may be one.
    ///
    /// Only the last task that called is woken; while other tasks receive, this waits for them.
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::future::poll_fn;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"message").await?;
    /// let mut buffer = [0; 64];
    /// assert_eq!(poll_fn(|cx| b.poll_recv(cx, &mut buffer)).await?, 7);
    /// # Ok(()) }
    /// ```
    pub fn poll_recv(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_stream_end(cx));
        self.inner.poll_recv(cx, buffer)
    }

    /// Receive a message scattered into several buffers. Else as [`poll_recv`](Self::poll_recv).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::future::poll_fn;
    /// use std::io::IoSliceMut;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"message").await?;
    /// let mut room = [0; 64];
    /// let mut buffers = [IoSliceMut::new(&mut room)];
    /// assert_eq!(poll_fn(|cx| b.poll_recv_vectored(cx, &mut buffers)).await?, 7);
    /// # Ok(()) }
    /// ```
    pub fn poll_recv_vectored(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_stream_end(cx));
        self.inner.poll_recv_vectored(cx, buffer)
    }

    /// Receive a message with its ancillary data. Else as [`poll_recv`](Self::poll_recv).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::future::poll_fn;
    /// use std::io::IoSliceMut;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// # let file = std::fs::File::open("/dev/null")?;
    /// # let mut control = [0; 32];
    /// # let mut writer = tokio_seqpacket::ancillary::AncillaryMessageWriter::new(&mut control);
    /// # writer.add_fds(&[&file])?;
    /// # a.send_with_ancillary(b"a file", &mut writer).await?;
    /// let (mut bytes, mut fds) = ([0; 64], 0);
    /// let len = poll_fn(|cx| {
    ///     let mut control = [0; 64];
    ///     let mut buffers = [IoSliceMut::new(&mut bytes)];
    ///     let polled = b.poll_recv_vectored_with_ancillary(cx, &mut buffers, &mut control);
    ///     polled.map_ok(|(len, ancillary)| {
    ///         fds = ancillary.messages().count();
    ///         len
    ///     })
    /// })
    /// .await?;
    /// assert_eq!((len, fds), (6, 1));
    /// # Ok(()) }
    /// ```
    pub fn poll_recv_vectored_with_ancillary<'a>(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [IoSliceMut<'_>],
        ancillary_buffer: &'a mut [u8],
    ) -> Poll<io::Result<(usize, AncillaryMessageReader<'a>)>> {
        ready!(self.poll_stream_end(cx));
        let (info, reader) = ready!(self.inner.poll_recv_message(cx, buffer, ancillary_buffer))?;
        Poll::Ready(Ok((info.bytes_read(), reader)))
    }

    /// Receive a message with ancillary data into one buffer, or have this task woken when there may be
    /// one. Else as [`poll_recv_vectored_with_ancillary`](Self::poll_recv_vectored_with_ancillary).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::future::poll_fn;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// b.set_pass_credentials(true)?;
    /// a.send(b"message").await?;
    /// let mut bytes = [0; 64];
    /// let came = poll_fn(|cx| {
    ///     let mut control = [0; 64];
    ///     let polled = b.poll_recv_with_ancillary(cx, &mut bytes, &mut control);
    ///     polled.map_ok(|(len, ancillary)| (len, ancillary.is_empty()))
    /// });
    /// assert_eq!(came.await?, (7, false));
    /// # Ok(()) }
    /// ```
    pub fn poll_recv_with_ancillary<'a>(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        ancillary_buffer: &'a mut [u8],
    ) -> Poll<io::Result<(usize, AncillaryMessageReader<'a>)>> {
        let mut buffer = [IoSliceMut::new(buffer)];
        self.poll_recv_vectored_with_ancillary(cx, &mut buffer, ancillary_buffer)
    }

    // ----- many messages -----

    /// A stream of the messages that come, each in a buffer that it leases. See [`Messages`].
    ///
    /// # Errors
    /// `ResourceBusy` if the socket has a stream already.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::MessagesOptions;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"one").await?;
    /// a.send(b"two").await?;
    /// drop(a);
    ///
    /// let mut messages = b.messages(MessagesOptions::new())?;
    /// let mut count = 0;
    /// while let Some(message) = messages.next().await {
    ///     assert_eq!(message?.len(), 3);
    ///     count += 1;
    /// }
    /// assert_eq!(count, 2);
    /// # Ok(()) }
    /// ```
    pub fn messages(&self, options: MessagesOptions) -> io::Result<Messages<'_>> {
        Messages::new(&self.inner, &self.extras().exclusive, options)
    }

    /// A batch of messages to be sent, still empty. See [`SendBatch`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let mut batch = a.batch();
    /// batch.push(b"one");
    /// batch.push(b"two");
    /// assert_eq!(batch.send().await?, 2);
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn batch(&self) -> SendBatch<'_> {
        SendBatch::new(&self.inner)
    }

    /// Receive as many messages as have come, one into each buffer, with one system call for up to 32
    /// (`recvmmsg(2)`). Waits for the first only.
    ///
    /// Appends to `infos` what is known of each, and returns how many there are, at least one. A
    /// message of 0 bytes is an empty message or end of stream, as with [`recv`](Self::recv); of
    /// several such at the very end of the stream one is told. Ancillary data is discarded, which
    /// [`MessageInfo::ancillary_truncated`] tells. [`messages`](Self::messages) loses neither.
    ///
    /// # Cancel safety
    /// A future that is dropped loses nothing.
    ///
    /// # Errors
    /// `InvalidInput` without a buffer. Else see [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::IoSliceMut;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"one").await?;
    /// a.send(b"three").await?;
    /// let mut rooms = [[0; 64]; 8];
    /// let mut buffers = rooms.each_mut().map(|room| IoSliceMut::new(room));
    /// let mut infos = Vec::new();
    /// assert_eq!(b.recv_batch(&mut buffers, &mut infos).await?, 2);
    /// assert_eq!(&rooms[1][..infos[1].bytes_read()], b"three");
    /// # Ok(()) }
    /// ```
    pub async fn recv_batch(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        infos: &mut Vec<MessageInfo>,
    ) -> io::Result<usize> {
        let before = infos.len();
        if buffers.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no buffer to receive into"));
        }
        self.stream_end().await;
        self.inner.recv_batch(buffers, infos).await?;
        Ok(infos.len() - before)
    }

    fn extras(&self) -> &Extras {
        self.extras.get_or_init(Box::default)
    }

    /// The stream, if there is one.
    fn stream(&self) -> Option<&Exclusive> {
        self.extras.get().map(|extras| &extras.exclusive).filter(|exclusive| exclusive.is_claimed())
    }

    /// Waits for the end of a stream, if there is one.
    async fn stream_end(&self) {
        if let Some(stream) = self.stream() {
            // In a box: every receive that waits would have room for this.
            Box::pin(stream.freed()).await;
        }
    }

    pub(crate) fn poll_stream_end(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream().map_or(Poll::Ready(()), |stream| stream.poll_freed(cx))
    }

    /// `WouldBlock` while there is a stream.
    pub(crate) fn without_stream(&self) -> io::Result<()> {
        self.stream().map_or(Ok(()), |_| Err(io::ErrorKind::WouldBlock.into()))
    }

    // ----- readiness -----

    /// Wait until the socket may be ready for one of the given directions, and say which.
    ///
    /// A direction in which another task is at work or waits does not count as ready. Readiness can
    /// be wrong: a `try_*` call may still return `WouldBlock`. Cancel safe.
    ///
    /// # Errors
    /// If the runtime is gone.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio::io::Interest;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"message").await?;
    /// let ready = b.ready(Interest::READABLE | Interest::WRITABLE).await?;
    /// assert!(ready.is_readable() || ready.is_writable());
    /// # Ok(()) }
    /// ```
    pub async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        // A loop of readable() and try_recv() must yield, too; neither AsyncFd nor a direct call pays.
        tokio::task::coop::consume_budget().await;
        while interest.is_readable()
            && let Some(stream) = self.stream()
        {
            if let Some(ready) = Box::pin(self.ready_beside(stream, interest)).await {
                return ready;
            }
        }
        self.inner.ready(interest).await
    }

    /// While there is a stream, only the other direction can be waited for. `None` when the stream has ended.
    async fn ready_beside(
        &self,
        stream: &Exclusive,
        interest: Interest,
    ) -> Option<io::Result<Ready>> {
        let mut end = pin!(stream.freed());
        let Some(other) = interest.remove(Interest::READABLE) else {
            end.await;
            return None;
        };
        let mut ready = pin!(self.inner.ready(other));
        poll_fn(|cx| match end.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => ready.as_mut().poll(cx).map(Some),
        })
        .await
    }

    /// Wait until [`try_recv`](Self::try_recv) may succeed. See [`ready`](Self::ready).
    ///
    /// # Errors
    /// If the runtime is gone.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::ErrorKind;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"message").await?;
    /// let mut buffer = [0; 64];
    /// let len = loop {
    ///     b.readable().await?;
    ///     match b.try_recv(&mut buffer) {
    ///         Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
    ///         received => break received?,
    ///     }
    /// };
    /// assert_eq!(len, 7);
    /// # Ok(()) }
    /// ```
    pub async fn readable(&self) -> io::Result<()> {
        self.ready(Interest::READABLE).await.map(drop)
    }

    /// Wait until [`try_send`](Self::try_send) may succeed. See [`ready`](Self::ready).
    ///
    /// # Errors
    /// If the runtime is gone.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::ErrorKind;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// loop {
    ///     a.writable().await?;
    ///     match a.try_send(b"message") {
    ///         Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
    ///         sent => break sent?,
    ///     }
    /// };
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub async fn writable(&self) -> io::Result<()> {
        self.ready(Interest::WRITABLE).await.map(drop)
    }

    /// Whether [`try_recv`](Self::try_recv) may succeed, or have this task woken when it may. Only
    /// the last task that called this or another receiving `poll_*` function is woken.
    ///
    /// # Errors
    /// If the runtime is gone.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::future::poll_fn;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"message").await?;
    /// poll_fn(|cx| b.poll_recv_ready(cx)).await?;
    /// assert_eq!(b.try_recv(&mut [0; 16])?, 7);
    /// # Ok(()) }
    /// ```
    pub fn poll_recv_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_stream_end(cx));
        self.inner.poll_ready(cx, Interest::READABLE)
    }

    /// Whether [`try_send`](Self::try_send) may succeed, or have this task woken when it may. Only
    /// the last task that called this or another sending `poll_*` function is woken.
    ///
    /// # Errors
    /// If the runtime is gone.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::future::poll_fn;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// poll_fn(|cx| a.poll_send_ready(cx)).await?;
    /// assert_eq!(a.try_send(b"message")?, 7);
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn poll_send_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_ready(cx, Interest::WRITABLE)
    }

    // ----- descriptors -----

    /// The number of the file descriptor.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::os::fd::{AsFd, AsRawFd};
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// assert_eq!(a.as_raw_fd(), a.as_fd().as_raw_fd());
    /// assert_ne!(a.as_raw_fd(), b.as_raw_fd());
    /// # Ok(()) }
    /// ```
    pub fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }

    /// Leave the runtime and give the file descriptor away; closing it is the caller's now.
    ///
    /// On io_uring a message that a dropped receive has left is lost: take it with [`try_recv`](Self::try_recv)
    /// first, or use [`try_into_fd`](Self::try_into_fd).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::os::fd::{FromRawFd, OwnedFd};
    ///
    /// let (a, _b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let number = a.into_raw_fd();
    /// // SAFETY: it was given away just now.
    /// let fd = unsafe { OwnedFd::from_raw_fd(number) };
    /// # drop(fd);
    /// # Ok(()) }
    /// ```
    pub fn into_raw_fd(self) -> RawFd {
        OwnedFd::from(self).into_raw_fd()
    }

    pub(crate) fn explained(
        &self,
        sent: io::Result<usize>,
        len: impl FnOnce() -> usize,
        control: &[u8],
    ) -> io::Result<usize> {
        sent.map_err(|error| refused_send(error, self.as_fd(), len(), control))
    }
}

fn total(buffers: &[IoSlice<'_>]) -> usize {
    buffers.iter().map(|buffer| buffer.len()).sum()
}

impl fmt::Debug for UnixSeqpacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnixSeqpacket")
            .field("fd", &self.as_raw_fd())
            .field("backend", &self.backend())
            .finish()
    }
}

impl AsFd for UnixSeqpacket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.fd()
    }
}

impl AsRef<UnixSeqpacket> for UnixSeqpacket {
    fn as_ref(&self) -> &UnixSeqpacket {
        self
    }
}

impl AsRawFd for UnixSeqpacket {
    fn as_raw_fd(&self) -> RawFd {
        self.as_raw_fd()
    }
}

impl IntoRawFd for UnixSeqpacket {
    fn into_raw_fd(self) -> RawFd {
        self.into_raw_fd()
    }
}

impl TryFrom<OwnedFd> for UnixSeqpacket {
    type Error = io::Error;

    /// Take over a connected socket, inherited for example; it is made non-blocking.
    fn try_from(fd: OwnedFd) -> io::Result<Self> {
        Options::new().socket_from_fd(fd)
    }
}

impl From<UnixSeqpacket> for OwnedFd {
    fn from(socket: UnixSeqpacket) -> Self {
        socket.inner.into_fd()
    }
}
