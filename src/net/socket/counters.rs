//! [`SocketCounters`]: what one socket has carried, and how often it had to wait.

use std::iter::Sum;
use std::ops::{Add, Sub};

use crate::net::socket::UnixSeqpacket;

impl UnixSeqpacket {
    /// Returns what this socket has sent and received since it was made.
    ///
    /// They are always counted, on both backends, in every way to send and to receive. Each call costs a few loads and
    /// stores, and no system call. The counters end with the socket, so read them before you drop it. They count this
    /// socket and not its duplicates.
    ///
    /// They are exact where one task sends and one task receives. With more, an increment can be lost where two threads
    /// meet. While messages go through, the fields may be of slightly different moments.
    ///
    /// [`metrics()`](crate::metrics) has the counters of a runtime. The example `metrics` exports both.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"message").await?;
    /// let sent = a.counters();
    /// assert_eq!((sent.messages_sent, sent.bytes_sent), (1, 7));
    ///
    /// // Not received yet.
    /// assert_eq!(b.counters().messages_received, 0);
    /// b.recv(&mut [0; 64]).await?;
    /// assert_eq!(b.counters().bytes_received, 7);
    /// # Ok(()) }
    /// ```
    pub fn counters(&self) -> SocketCounters {
        let (sent, received) = (self.inner.sent(), self.inner.received());
        SocketCounters {
            messages_sent: sent.messages.get(),
            bytes_sent: sent.bytes.get(),
            fds_sent: sent.fds.get(),
            sends_parked: sent.parked.get(),
            messages_received: received.messages.get(),
            bytes_received: received.bytes.get(),
            fds_received: received.fds.get(),
            receives_parked: received.parked.get(),
        }
    }
}

/// Holds what one socket has carried, from [`UnixSeqpacket::counters`].
///
/// Counters of several sockets can be added up. The difference of two readings is what came between them.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use tokio_seqpacket::SocketCounters;
///
/// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
/// a.send(b"one").await?;
/// let before = a.counters();
/// a.send(b"another").await?;
/// assert_eq!((a.counters() - before).bytes_sent, 7);
///
/// let both: SocketCounters = [&a, &b].map(|socket| socket.counters()).into_iter().sum();
/// assert_eq!(both.messages_sent, 2);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SocketCounters {
    /// Messages that the kernel has taken. One that waits is not counted before it has gone out. One whose future was
    /// dropped is counted if it has gone out.
    pub messages_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// File descriptors that went with them.
    pub fds_sent: u64,
    /// How often the direction for sending had to wait for readiness: the peer's queue was full.
    pub sends_parked: u64,
    /// Messages that a call has returned, or that a [`Messages`](crate::Messages) has received. A message that lies in the
    /// socket after its receive was dropped is not counted yet, and peeks count nothing.
    ///
    /// An empty message is counted once it is known not to be the end of the stream. After a call that cannot
    /// distinguish them, such as [`recv`](UnixSeqpacket::recv), it is counted with the next message.
    pub messages_received: u64,
    /// Bytes that were written into the buffers of receives. What did not fit is not counted.
    pub bytes_received: u64,
    /// File descriptors that receives have returned. What they had no capacity for, and closed, is not counted.
    pub fds_received: u64,
    /// How often the direction for receiving had to wait for readiness: no message was there.
    pub receives_parked: u64,
}

impl SocketCounters {
    fn zip(self, other: Self, with: fn(u64, u64) -> u64) -> Self {
        Self {
            messages_sent: with(self.messages_sent, other.messages_sent),
            bytes_sent: with(self.bytes_sent, other.bytes_sent),
            fds_sent: with(self.fds_sent, other.fds_sent),
            sends_parked: with(self.sends_parked, other.sends_parked),
            messages_received: with(self.messages_received, other.messages_received),
            bytes_received: with(self.bytes_received, other.bytes_received),
            fds_received: with(self.fds_received, other.fds_received),
            receives_parked: with(self.receives_parked, other.receives_parked),
        }
    }
}

impl Add for SocketCounters {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.zip(other, u64::saturating_add)
    }
}

impl Sub for SocketCounters {
    type Output = Self;

    /// Returns the difference, and 0 for a counter that is larger in `before`.
    fn sub(self, before: Self) -> Self {
        self.zip(before, u64::saturating_sub)
    }
}

impl Sum for SocketCounters {
    fn sum<I: Iterator<Item = Self>>(counters: I) -> Self {
        counters.fold(Self::default(), Add::add)
    }
}
