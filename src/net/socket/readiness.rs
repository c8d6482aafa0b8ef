//! Waiting until a call may succeed.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use filedesc::FileDesc;
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};

use crate::net::socket::UnixSeqpacket;
use crate::net::socket::exclusive::Exclusive;

impl UnixSeqpacket {
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
}
