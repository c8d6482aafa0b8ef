//! Borrowed halves of a socket, as in the first releases of tokio-seqpacket.

use std::ops::Deref;

use crate::net::socket::UnixSeqpacket;

impl UnixSeqpacket {
    /// Borrows the socket as two halves.
    ///
    /// All calls work through `&self`, so new code does not need this. It serves code that was
    /// written for the first releases of tokio-seqpacket.
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
}

/// The borrowed reading half of a socket, from [`UnixSeqpacket::split`]. It dereferences to the
/// socket.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use tokio_seqpacket::{ReadHalf, UnixSeqpacket};
///
/// async fn message_len(reader: ReadHalf<'_>) -> std::io::Result<usize> {
///     reader.recv(&mut [0; 64]).await
/// }
/// let (socket, peer) = UnixSeqpacket::pair()?;
/// let (reader, writer) = socket.split();
/// peer.send(b"question").await?;
/// let (len, sent) = tokio::join!(message_len(reader), writer.send(b"answer"));
/// assert_eq!((len?, sent?), (8, 6));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct ReadHalf<'a>(&'a UnixSeqpacket);

/// The borrowed writing half of a socket, from [`UnixSeqpacket::split`]. It dereferences to the
/// socket.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use tokio_seqpacket::{UnixSeqpacket, WriteHalf};
///
/// async fn greet(writer: WriteHalf<'_>) -> std::io::Result<usize> {
///     writer.send(b"hello").await
/// }
/// let (socket, peer) = UnixSeqpacket::pair()?;
/// let (_reader, writer) = socket.split();
/// // It can be copied.
/// greet(writer).await?;
/// greet(writer).await?;
/// assert_eq!(peer.recv(&mut [0; 16]).await?, 5);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct WriteHalf<'a>(&'a UnixSeqpacket);

impl Deref for ReadHalf<'_> {
    type Target = UnixSeqpacket;

    fn deref(&self) -> &UnixSeqpacket {
        self.0
    }
}

impl Deref for WriteHalf<'_> {
    type Target = UnixSeqpacket;

    fn deref(&self) -> &UnixSeqpacket {
        self.0
    }
}

impl AsRef<UnixSeqpacket> for ReadHalf<'_> {
    fn as_ref(&self) -> &UnixSeqpacket {
        self
    }
}

impl AsRef<UnixSeqpacket> for WriteHalf<'_> {
    fn as_ref(&self) -> &UnixSeqpacket {
        self
    }
}
