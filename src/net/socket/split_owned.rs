//! Halves that own the socket together, for different tasks.

use std::fmt;
use std::net::Shutdown;
use std::ops::Deref;
use std::sync::Arc;

use crate::net::socket::UnixSeqpacket;

/// The owned reading half of a socket, from [`UnixSeqpacket::into_split`].
///
/// It dereferences to the socket, which has all calls. Dropping it has no effect while the other
/// half lives.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// let (socket, peer) = tokio_seqpacket::UnixSeqpacket::pair()?;
/// let (reader, writer) = socket.into_split();
/// peer.send(b"question").await?;
/// assert_eq!(reader.recv(&mut [0; 16]).await?, 8);
/// drop(reader);
/// // That shuts down nothing.
/// peer.send(b"another").await?;
/// assert_eq!(writer.recv(&mut [0; 16]).await?, 7);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct OwnedReadHalf(Arc<UnixSeqpacket>);

/// The owned writing half of a socket, from [`UnixSeqpacket::into_split`].
///
/// It dereferences to the socket, which has all calls. Dropping it shuts down writing
/// (`shutdown(2)`), also for duplicates of the socket in other processes. The peer receives all
/// messages that were sent, and then end of stream. The other half goes on receiving.
/// [`forget`](Self::forget) drops this half without the shutdown.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// let (socket, peer) = tokio_seqpacket::UnixSeqpacket::pair()?;
/// let (reader, writer) = socket.into_split();
/// writer.send(b"the last").await?;
/// drop(writer);
/// assert_eq!(peer.recv(&mut [0; 16]).await?, 8);
/// assert_eq!(peer.recv(&mut [0; 16]).await?, 0);
/// peer.send(b"goodbye").await?;
/// assert_eq!(reader.recv(&mut [0; 16]).await?, 7);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct OwnedWriteHalf {
    socket: Arc<UnixSeqpacket>,
    shuts_down: bool,
}

/// The error of `reunite`: the two halves are not of the same socket. It holds both.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use tokio_seqpacket::{ReuniteError, UnixSeqpacket};
///
/// let (a, b) = UnixSeqpacket::pair()?;
/// let ((a_reader, a_writer), (_b_reader, b_writer)) = (a.into_split(), b.into_split());
/// let ReuniteError(reader, _b_writer) = a_reader.reunite(b_writer).unwrap_err();
/// // Both have come back for another attempt.
/// assert!(reader.reunite(a_writer).is_ok());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct ReuniteError(pub OwnedReadHalf, pub OwnedWriteHalf);

impl fmt::Display for ReuniteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the two halves are not of the same socket")
    }
}

impl std::error::Error for ReuniteError {}

impl UnixSeqpacket {
    /// Splits the socket into two halves that own it together, like tokio's
    /// `UnixStream::into_split`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::UnixSeqpacket;
    ///
    /// let (socket, peer) = UnixSeqpacket::pair()?;
    /// let (reader, writer) = socket.into_split();
    /// let sending = tokio::spawn(async move { writer.send(b"the last").await });
    /// assert_eq!(sending.await??, 8);
    ///
    /// let mut buffer = [0; 16];
    /// assert_eq!(peer.recv(&mut buffer).await?, 8);
    /// // The writing half was dropped at the end of its task.
    /// assert_eq!(peer.recv(&mut buffer).await?, 0);
    /// peer.send(b"answer").await?;
    /// assert_eq!(reader.recv(&mut buffer).await?, 6);
    /// # Ok(()) }
    /// ```
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        let socket = Arc::new(self);
        (OwnedReadHalf(socket.clone()), OwnedWriteHalf { socket, shuts_down: true })
    }
}

impl OwnedReadHalf {
    /// Puts the two halves together to the socket.
    ///
    /// # Errors
    /// [`ReuniteError`], which holds both halves, if they are not of the same socket.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let (reader, writer) = a.into_split();
    /// let a = reader.reunite(writer).expect("they are of the same socket");
    /// a.send(b"whole again").await?;
    ///
    /// let (reader, _writer) = a.into_split();
    /// let (_reader, writer) = b.into_split();
    /// let error = reader.reunite(writer).unwrap_err();
    /// // The error holds both halves.
    /// let (_reader, _writer) = (error.0, error.1);
    /// # Ok(()) }
    /// ```
    pub fn reunite(self, other: OwnedWriteHalf) -> Result<UnixSeqpacket, ReuniteError> {
        reunite(self, other)
    }
}

impl OwnedWriteHalf {
    /// Puts the two halves together to the socket. See [`OwnedReadHalf::reunite`].
    ///
    /// # Errors
    /// Those of [`OwnedReadHalf::reunite`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let (reader, writer) = a.into_split();
    /// // The writing half is consumed, but writing is not shut down.
    /// let a = writer.reunite(reader).expect("they are of the same socket");
    /// a.send(b"whole again").await?;
    /// assert_eq!(b.recv(&mut [0; 16]).await?, 11);
    /// # Ok(()) }
    /// ```
    pub fn reunite(self, other: OwnedReadHalf) -> Result<UnixSeqpacket, ReuniteError> {
        reunite(other, self)
    }

    /// Drops this half without shutting down writing. The socket closes with the other half.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let (reader, writer) = a.into_split();
    /// writer.forget();
    /// // The peer does not see an end. The other half can send as well.
    /// reader.send(b"still here").await?;
    /// assert_eq!(b.recv(&mut [0; 16]).await?, 10);
    /// # Ok(()) }
    /// ```
    pub fn forget(mut self) {
        self.shuts_down = false;
    }
}

fn reunite(
    reader: OwnedReadHalf,
    mut writer: OwnedWriteHalf,
) -> Result<UnixSeqpacket, ReuniteError> {
    if !Arc::ptr_eq(&reader.0, &writer.socket) {
        return Err(ReuniteError(reader, writer));
    }
    writer.shuts_down = false;
    drop(writer);
    Ok(Arc::into_inner(reader.0).expect("only the two halves have an Arc of it"))
}

impl Drop for OwnedWriteHalf {
    fn drop(&mut self) {
        if self.shuts_down {
            // A socket that is no longer connected needs no shutdown.
            let _ = self.socket.shutdown(Shutdown::Write);
        }
    }
}

impl Deref for OwnedReadHalf {
    type Target = UnixSeqpacket;

    fn deref(&self) -> &UnixSeqpacket {
        &self.0
    }
}

impl Deref for OwnedWriteHalf {
    type Target = UnixSeqpacket;

    fn deref(&self) -> &UnixSeqpacket {
        &self.socket
    }
}

impl AsRef<UnixSeqpacket> for OwnedReadHalf {
    fn as_ref(&self) -> &UnixSeqpacket {
        self
    }
}

impl AsRef<UnixSeqpacket> for OwnedWriteHalf {
    fn as_ref(&self) -> &UnixSeqpacket {
        self
    }
}
