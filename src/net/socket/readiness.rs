//! Waiting for readiness: until a `try_*` call may succeed.

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
    /// Waits until the socket may be ready for one of the given directions, and returns which.
    ///
    /// A direction does not count as ready while another task uses it or waits for it. Readiness
    /// can be wrong: a `try_*` call may still return `WouldBlock`.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    ///
    /// # Errors
    /// An error if the runtime is gone.
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
        // A loop of readable() and try_recv() must yield. Neither AsyncFd nor a direct call
        // consumes budget.
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

    /// Waits until [`try_recv`](Self::try_recv) may succeed. See [`ready`](Self::ready).
    ///
    /// # Errors
    /// An error if the runtime is gone.
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

    /// Waits until [`try_send`](Self::try_send) may succeed. See [`ready`](Self::ready).
    ///
    /// # Errors
    /// An error if the runtime is gone.
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

    /// Polls until [`try_recv`](Self::try_recv) may succeed, and wakes the task then.
    ///
    /// Only the last task that polled with this or another receiving `poll_*` function is woken.
    ///
    /// # Errors
    /// An error if the runtime is gone.
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

    /// Polls until [`try_send`](Self::try_send) may succeed, and wakes the task then.
    ///
    /// Only the last task that polled with this or another sending `poll_*` function is woken.
    ///
    /// # Errors
    /// An error if the runtime is gone.
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

    /// Returns the socket as registered with tokio's I/O driver, for other system calls on it.
    ///
    /// This is a duplicate of the descriptor, registered at the first call. From then on every
    /// message costs an event. On io_uring a message may have been received already for the next
    /// receive of this crate. Other system calls are therefore exact only while no receive waits or
    /// was dropped unfinished.
    ///
    /// # Panics
    /// Panics if the duplicate cannot be made or registered, because no descriptor is free or the
    /// runtime is gone. [`readable`](Self::readable) and [`writable`](Self::writable) return an
    /// error there.
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

    /// Waits for the other direction only, while there is a stream. Returns `None` once the stream
    /// has ended.
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
