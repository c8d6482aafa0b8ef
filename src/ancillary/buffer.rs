use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};

use super::owned::OwnedAncillaryMessage;
use super::reader::AncillaryMessageReader;
use super::wire::{self, MAX_CONTROL, MAX_FDS};
use crate::types::ucred::UCred;
use crate::util::close::Fds;

/// Holds ancillary data as values: file descriptors that it owns, and credentials.
///
/// It is for the calls that take their buffers. A send call passes duplicates to the peer and gives
/// the buffer back as it was. A receive call empties it first, which closes what was in it, and then
/// fills it with everything that came with the message. Its capacity is always that of a whole
/// message: 253 descriptors (`SCM_MAX_FD`), credentials and a pidfd. Fewer come where the socket has
/// a limit: see [`set_max_fds`](crate::UnixSeqpacket::set_max_fds).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use tokio_seqpacket::UnixSeqpacket;
/// use tokio_seqpacket::ancillary::AncillaryBuffer;
///
/// let (a, b) = UnixSeqpacket::pair()?;
/// let mut ancillary = AncillaryBuffer::new();
/// ancillary.push_fd(std::fs::File::open("/dev/null")?)?;
/// let (sent, _, _) = a.send_owned_with_ancillary(b"a file".to_vec(), ancillary).await;
/// assert_eq!(sent?, 6);
///
/// let (received, bytes, mut ancillary) =
///     b.recv_owned_with_ancillary(Vec::with_capacity(64), AncillaryBuffer::new()).await;
/// assert!(!received?.ancillary_truncated());
/// assert_eq!(bytes, b"a file");
/// assert_eq!(ancillary.drain_fds().count(), 1);
/// # Ok(()) }
/// ```
#[derive(Default)]
pub struct AncillaryBuffer {
    fds: Fds,
    credentials: Option<UCred>,
    pidfd: Option<OwnedFd>,
}

impl AncillaryBuffer {
    /// Creates an empty buffer.
    ///
    /// ```
    /// use tokio_seqpacket::ancillary::AncillaryBuffer;
    ///
    /// let ancillary = AncillaryBuffer::new();
    /// assert_eq!((ancillary.fds().len(), ancillary.credentials()), (0, None));
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file descriptor that the next send call passes.
    ///
    /// # Errors
    /// Returns `InvalidInput` for the 254th descriptor (`SCM_MAX_FD`), and closes it.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use std::fs::File;
    /// use tokio_seqpacket::ancillary::AncillaryBuffer;
    ///
    /// let (reader, _writer) = std::io::pipe()?;
    /// let mut ancillary = AncillaryBuffer::new();
    /// ancillary.push_fd(reader)?;
    /// ancillary.push_fd(File::open("/dev/null")?)?;
    /// assert_eq!(ancillary.fds().len(), 2);
    /// # Ok(()) }
    /// ```
    pub fn push_fd(&mut self, fd: impl Into<OwnedFd>) -> io::Result<()> {
        if self.fds().len() == MAX_FDS {
            return Err(too_many_fds(MAX_FDS + 1));
        }
        self.fds.push(fd.into());
        Ok(())
    }

    /// Returns the file descriptors.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use std::fs::File;
    /// use tokio_seqpacket::ancillary::AncillaryBuffer;
    ///
    /// let ancillary = AncillaryBuffer::from_iter([File::open("/proc/self/comm")?.into()]);
    /// // Borrowing takes nothing out. A duplicate is possible.
    /// let file = File::from(ancillary.fds()[0].try_clone()?);
    /// assert!(file.metadata()?.is_file());
    /// assert_eq!(ancillary.fds().len(), 1);
    /// # Ok(()) }
    /// ```
    pub fn fds(&self) -> &[OwnedFd] {
        self.fds.as_slice()
    }

    /// Returns an iterator that takes the file descriptors out.
    ///
    /// Descriptors that it has not yielded when it is dropped are closed. The capacity for them is kept
    /// for the next call.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use std::fs::File;
    /// use std::io::Read;
    /// use tokio_seqpacket::ancillary::AncillaryBuffer;
    ///
    /// let (mut reader, writer) = std::io::pipe()?;
    /// let fds = [File::open("/dev/null")?.into(), writer.into()];
    /// let mut ancillary = AncillaryBuffer::from_iter(fds);
    /// assert!(ancillary.drain_fds().next().is_some());
    /// // The pipe's writing end, which was not taken, is closed.
    /// assert_eq!(reader.read(&mut [0])?, 0);
    /// # Ok(()) }
    /// ```
    pub fn drain_fds(&mut self) -> impl ExactSizeIterator<Item = OwnedFd> + '_ {
        self.fds.drain()
    }

    /// Takes the file descriptors out, in a vector of their own.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use std::fs::File;
    /// use tokio_seqpacket::ancillary::AncillaryBuffer;
    ///
    /// let mut ancillary = AncillaryBuffer::from_iter([File::open("/proc/self/comm")?.into()]);
    /// let files: Vec<File> = ancillary.take_fds().into_iter().map(File::from).collect();
    /// assert!(files[0].metadata()?.is_file());
    /// assert!(ancillary.take_fds().is_empty());
    /// # Ok(()) }
    /// ```
    pub fn take_fds(&mut self) -> Vec<OwnedFd> {
        self.fds.take()
    }

    /// Returns the credentials: those that a send call passes, or those that a receive call found.
    ///
    /// Those of a received message are the sender's. They come if `SO_PASSCRED` is set on the receiving
    /// socket: see [`set_pass_credentials`](crate::UnixSeqpacket::set_pass_credentials).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::UnixSeqpacket;
    /// use tokio_seqpacket::ancillary::AncillaryBuffer;
    ///
    /// let (a, b) = UnixSeqpacket::pair()?;
    /// let mut ancillary = AncillaryBuffer::new();
    /// for wanted in [false, true] {
    ///     b.set_pass_credentials(wanted)?;
    ///     a.send(b"message").await?;
    ///     let received;
    ///     (received, _, ancillary) = b.recv_owned_with_ancillary(vec![0; 64], ancillary).await;
    ///     received?;
    ///     assert_eq!(ancillary.credentials().is_some(), wanted);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn credentials(&self) -> Option<UCred> {
        self.credentials
    }

    /// Sets the credentials that a send call passes.
    ///
    /// The kernel checks them. The send call fails with `EPERM` if this process may not claim them
    /// (`unix(7)`).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::ancillary::AncillaryBuffer;
    /// use tokio_seqpacket::{UCred, UnixSeqpacket};
    ///
    /// let (a, b) = UnixSeqpacket::pair()?;
    /// b.set_pass_credentials(true)?;
    /// let mut ancillary = AncillaryBuffer::new();
    /// ancillary.set_credentials(Some(UCred::from_current_process()));
    /// a.send_owned_with_ancillary("it is me", ancillary).await.0?;
    ///
    /// let (received, _, mut ancillary) =
    ///     b.recv_owned_with_ancillary(Vec::with_capacity(64), AncillaryBuffer::new()).await;
    /// received?;
    /// assert_eq!(ancillary.credentials(), Some(UCred::from_current_process()));
    /// ancillary.clear();
    /// assert!(ancillary.is_empty());
    /// # Ok(()) }
    /// ```
    pub fn set_credentials(&mut self, credentials: Option<UCred>) {
        self.credentials = credentials;
    }

    /// Returns the descriptor of the sending process: see [`take_pidfd`](Self::take_pidfd).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::os::fd::AsRawFd;
    /// # use tokio_seqpacket::UnixSeqpacket;
    /// # use tokio_seqpacket::ancillary::AncillaryBuffer;
    ///
    /// # let (a, b) = UnixSeqpacket::pair()?;
    /// # // Linux 6.5.
    /// # if b.set_pass_pidfd(true).is_err() { return Ok(()) }
    /// # a.send(b"message").await?;
    /// # let ancillary = AncillaryBuffer::new();
    /// let (received, _, ancillary) = b.recv_owned_with_ancillary(vec![0; 64], ancillary).await;
    /// received?;
    /// let pidfd = ancillary.pidfd().expect("asked for with set_pass_pidfd");
    /// // It refers to the sender, which is this process.
    /// let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    /// assert!(info.contains(&format!("Pid:\t{}\n", std::process::id())));
    /// # Ok(()) }
    /// ```
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(|pidfd| pidfd.as_fd())
    }

    /// Takes the descriptor of the sending process that came with the message (`SCM_PIDFD`).
    ///
    /// It comes if `SO_PASSPIDFD` (Linux 6.5) is set on the receiving socket: see
    /// [`set_pass_pidfd`](crate::UnixSeqpacket::set_pass_pidfd). A send call never passes it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use tokio_seqpacket::UnixSeqpacket;
    /// # use tokio_seqpacket::ancillary::AncillaryBuffer;
    /// # let (a, b) = UnixSeqpacket::pair()?;
    /// // Linux 6.5.
    /// if b.set_pass_pidfd(true).is_ok() {
    ///     a.send(b"message").await?;
    ///     let (received, _, mut ancillary) =
    ///         b.recv_owned_with_ancillary(vec![0; 64], AncillaryBuffer::new()).await;
    ///     received?;
    ///     assert!(ancillary.take_pidfd().is_some());
    ///     assert!(ancillary.is_empty());
    /// }
    /// # Ok(()) }
    /// ```
    pub fn take_pidfd(&mut self) -> Option<OwnedFd> {
        self.pidfd.take()
    }

    /// Returns whether the buffer holds no descriptors and no credentials.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::UnixSeqpacket;
    /// use tokio_seqpacket::ancillary::AncillaryBuffer;
    ///
    /// let (a, b) = UnixSeqpacket::pair()?;
    /// a.send(b"only bytes").await?;
    /// let ancillary = AncillaryBuffer::new();
    /// let (received, _, ancillary) = b.recv_owned_with_ancillary(vec![0; 64], ancillary).await;
    /// assert_eq!((received?.bytes_read(), ancillary.is_empty()), (10, true));
    /// # Ok(()) }
    /// ```
    pub fn is_empty(&self) -> bool {
        self.fds().is_empty() && self.credentials.is_none() && self.pidfd.is_none()
    }

    /// Empties the buffer and closes the file descriptors in it.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use std::fs::File;
    /// use tokio_seqpacket::UCred;
    /// use tokio_seqpacket::ancillary::AncillaryBuffer;
    ///
    /// let mut ancillary = AncillaryBuffer::from_iter([File::open("/dev/null")?.into()]);
    /// ancillary.set_credentials(Some(UCred::from_current_process()));
    /// ancillary.clear();
    /// assert!(ancillary.fds().is_empty() && ancillary.credentials().is_none());
    /// # Ok(()) }
    /// ```
    pub fn clear(&mut self) {
        self.fds.clear();
        self.credentials = None;
        self.pidfd = None;
    }

    /// Writes what a send call passes as control data, and returns its length.
    pub(crate) fn encode(&self, control: &mut [u8; MAX_CONTROL]) -> io::Result<usize> {
        if self.fds().len() > MAX_FDS {
            return Err(too_many_fds(self.fds().len()));
        }
        let mut len = 0;
        if let Some(credentials) = self.credentials {
            wire::reserve(
                control,
                &mut len,
                libc::SOL_SOCKET,
                libc::SCM_CREDENTIALS,
                UCred::WIRE_LEN,
            )
            .expect("MAX_CONTROL includes the space for credentials")
            .copy_from_slice(&credentials.to_wire());
        }
        if !self.fds().is_empty() {
            let data = wire::reserve(
                control,
                &mut len,
                libc::SOL_SOCKET,
                libc::SCM_RIGHTS,
                self.fds().len() * wire::FD_LEN,
            )
            .expect("MAX_CONTROL includes the space for MAX_FDS descriptors");
            for (slot, fd) in data.chunks_exact_mut(wire::FD_LEN).zip(self.fds()) {
                slot.copy_from_slice(&fd.as_raw_fd().to_ne_bytes());
            }
        }
        Ok(len)
    }

    /// Moves everything out as the control data of a received message, and returns its length.
    ///
    /// The descriptors in the data have no other owner then.
    pub(crate) fn encode_owned(&mut self, control: &mut [u8; MAX_CONTROL]) -> usize {
        // Never more descriptors than a message can carry: they came with one.
        let mut len = self.encode(control).unwrap_or(0);
        if let Some(pidfd) = self.pidfd.take() {
            let data = pidfd.into_raw_fd().to_ne_bytes();
            wire::put(control, &mut len, libc::SOL_SOCKET, wire::SCM_PIDFD, &data);
        }
        for fd in self.fds.take() {
            let _ = fd.into_raw_fd();
        }
        len
    }

    /// Replaces the contents with what came with a message.
    pub(crate) fn fill(&mut self, received: AncillaryMessageReader<'_>) {
        self.clear();
        for message in received.into_messages() {
            match message {
                OwnedAncillaryMessage::FileDescriptors(fds) => {
                    fds.for_each(|fd| self.fds.push_received(fd));
                }
                OwnedAncillaryMessage::Credentials(credentials) => {
                    self.credentials = credentials.get(0);
                }
                OwnedAncillaryMessage::Other(other) => {
                    if let Some(pidfd) = other.into_pidfd() {
                        self.pidfd = Some(pidfd);
                    }
                }
            }
        }
    }
}

impl fmt::Debug for AncillaryBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AncillaryBuffer")
            .field("fds", &self.fds())
            .field("credentials", &self.credentials)
            .field("pidfd", &self.pidfd)
            .finish()
    }
}

impl FromIterator<OwnedFd> for AncillaryBuffer {
    /// Creates a buffer with file descriptors to send. The send call refuses more than 253.
    fn from_iter<I: IntoIterator<Item = OwnedFd>>(fds: I) -> Self {
        Self { fds: fds.into_iter().collect(), ..Self::default() }
    }
}

/// Returns the error for more descriptors than one message can carry.
pub(crate) fn too_many_fds(count: usize) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!(
            "{count} file descriptors exceed the limit of {MAX_FDS} in one message (SCM_MAX_FD)"
        ),
    )
}
