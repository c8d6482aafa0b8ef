use std::fmt;
use std::io;
use std::os::fd::AsRawFd;

use super::wire;
use crate::types::borrow_fd::BorrowFd;
use crate::types::ucred::UCred;

/// Writes control messages into a buffer of the caller's.
///
/// It never allocates.
///
/// # Example
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use std::io::IoSlice;
/// use tokio_seqpacket::UnixSeqpacket;
/// use tokio_seqpacket::ancillary::AncillaryMessageWriter;
///
/// let (a, b) = UnixSeqpacket::pair()?;
/// let file = std::fs::File::open("/dev/null")?;
/// let mut buffer = [0; 64];
/// let mut ancillary = AncillaryMessageWriter::new(&mut buffer);
/// ancillary.add_fds(&[&file])?;
/// a.send_vectored_with_ancillary(&[IoSlice::new(b"a file")], &mut ancillary).await?;
/// # drop(b);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct AncillaryMessageWriter<'a> {
    buffer: &'a mut [u8],
    length: usize,
}

/// Reports that a control message did not fit into the buffer of an [`AncillaryMessageWriter`].
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use std::io::{Error, ErrorKind};
/// use tokio_seqpacket::ancillary::{AddControlMessageError, AncillaryMessageWriter};
///
/// let file = std::fs::File::open("/dev/null")?;
/// let mut too_short = [0; 16];
/// let mut writer = AncillaryMessageWriter::new(&mut too_short);
/// let error: AddControlMessageError = writer.add_fds(&[&file]).unwrap_err();
/// // ENOSPC, where ? turns it into an io::Error.
/// assert_eq!(Error::from(error).kind(), ErrorKind::StorageFull);
/// # Ok(()) }
/// ```
pub struct AddControlMessageError(());

impl<'a> AncillaryMessageWriter<'a> {
    /// Alignment of the first control message.
    ///
    /// ```
    /// use tokio_seqpacket::ancillary::AncillaryMessageWriter;
    ///
    /// // A capacity of 24 bytes, at whatever address the array lies.
    /// let mut control = [0; 24 + AncillaryMessageWriter::BUFFER_ALIGN];
    /// assert!(AncillaryMessageWriter::new(&mut control).capacity() >= 24);
    /// ```
    pub const BUFFER_ALIGN: usize = align_of::<libc::cmsghdr>();

    /// Creates a writer that writes into `buffer`.
    ///
    /// Bytes in front of the first one that is aligned to [`BUFFER_ALIGN`](Self::BUFFER_ALIGN) are left
    /// unused. [`capacity()`](Self::capacity) is what remains.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::ancillary::AncillaryMessageWriter;
    ///
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let file = std::fs::File::open("/dev/null")?;
    /// let mut control = [0; 64];
    /// for message in [b"first", b"other"] {
    ///     // Each writer starts again in the same bytes.
    ///     let mut writer = AncillaryMessageWriter::new(&mut control);
    ///     writer.add_fds(&[&file])?;
    ///     a.send_with_ancillary(message, &mut writer).await?;
    /// }
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn new(buffer: &'a mut [u8]) -> Self {
        let skip = buffer.as_ptr().align_offset(Self::BUFFER_ALIGN);
        Self { buffer: buffer.get_mut(skip..).unwrap_or_default(), length: 0 }
    }

    /// Returns how many bytes can be used for control messages.
    ///
    /// ```
    /// use tokio_seqpacket::ancillary::AncillaryMessageWriter;
    ///
    /// #[repr(align(8))]
    /// struct Control([u8; 64]);
    /// let mut control = Control([0; 64]);
    /// assert_eq!(AncillaryMessageWriter::new(&mut control.0).capacity(), 64);
    /// let rest = 64 - AncillaryMessageWriter::BUFFER_ALIGN;
    /// assert_eq!(AncillaryMessageWriter::new(&mut control.0[1..]).capacity(), rest);
    /// ```
    pub fn capacity(&self) -> usize {
        self.buffer.len()
    }

    /// Returns whether nothing was added.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # use tokio_seqpacket::ancillary::AncillaryMessageWriter;
    /// let file = std::fs::File::open("/dev/null")?;
    /// let mut control = [0; 64];
    /// let mut writer = AncillaryMessageWriter::new(&mut control);
    /// assert!(writer.is_empty());
    /// writer.add_fds(&[&file])?;
    /// assert!(!writer.is_empty());
    /// # Ok(()) }
    /// ```
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Returns how many bytes are used.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # use tokio_seqpacket::ancillary::AncillaryMessageWriter;
    /// let file = std::fs::File::open("/dev/null")?;
    /// let mut control = [0; 64];
    /// let mut writer = AncillaryMessageWriter::new(&mut control);
    /// writer.add_fds(&[&file])?;
    /// let len = writer.len();
    /// // Another message, with a header of its own.
    /// writer.add_fds(&[&file])?;
    /// assert_eq!(writer.len(), 2 * len);
    /// # Ok(()) }
    /// ```
    pub fn len(&self) -> usize {
        self.length
    }

    /// Adds one `SCM_RIGHTS` message with these file descriptors.
    ///
    /// They stay borrowed until the writer is dropped. The receiver gets duplicates. At most 253 fit
    /// into one message (`SCM_MAX_FD`). The send call refuses more.
    ///
    /// # Errors
    /// Fails if the rest of the buffer is too short. Nothing is added then.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use std::fs::File;
    /// use std::os::fd::AsFd;
    /// use tokio_seqpacket::ancillary::AncillaryMessageWriter;
    ///
    /// let (null, stdin) = (File::open("/dev/null")?, std::io::stdin());
    /// let mut control = [0; 64];
    /// let mut writer = AncillaryMessageWriter::new(&mut control);
    /// // In one message, and in a second one.
    /// writer.add_fds(&[null.as_fd(), stdin.as_fd()])?;
    /// writer.add_fds(&[&null])?;
    /// assert!(writer.add_fds(&[&null; 16]).is_err());
    /// # Ok(()) }
    /// ```
    pub fn add_fds<T>(&mut self, fds: &[T]) -> Result<(), AddControlMessageError>
    where
        T: BorrowFd<'a>,
    {
        self.add_raw_fds(fds.iter().map(|fd| fd.borrow_fd().as_raw_fd()))
    }

    /// Adds one `SCM_RIGHTS` message, as [`add_fds`](Self::add_fds), from an iterator of known length.
    ///
    /// # Errors
    /// Fails if the rest of the buffer is too short. Nothing is added then.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::ancillary::AncillaryMessageWriter;
    ///
    /// let files = vec![std::fs::File::open("/dev/null")?, std::fs::File::open("/dev/zero")?];
    /// let mut control = [0; 64];
    /// let mut writer = AncillaryMessageWriter::new(&mut control);
    /// writer.add_fds_iter(&files)?;
    /// assert!(!writer.is_empty());
    /// # Ok(()) }
    /// ```
    pub fn add_fds_iter<I>(&mut self, fds: I) -> Result<(), AddControlMessageError>
    where
        I: IntoIterator,
        I::Item: BorrowFd<'a>,
        I::IntoIter: ExactSizeIterator,
    {
        self.add_raw_fds(fds.into_iter().map(|fd| fd.borrow_fd().as_raw_fd()))
    }

    fn add_raw_fds(
        &mut self,
        fds: impl ExactSizeIterator<Item = i32>,
    ) -> Result<(), AddControlMessageError> {
        let len = fds.len().checked_mul(wire::FD_LEN).ok_or(AddControlMessageError(()))?;
        let length = self.length;
        let data = self.reserve(libc::SCM_RIGHTS, len)?;
        let mut written = 0;
        for (slot, fd) in data.chunks_exact_mut(wire::FD_LEN).zip(fds) {
            slot.copy_from_slice(&fd.to_ne_bytes());
            written += wire::FD_LEN;
        }
        if written != len {
            // The iterator yielded fewer than its length.
            self.length = length;
            return Err(AddControlMessageError(()));
        }
        Ok(())
    }

    /// Adds one `SCM_CREDENTIALS` message.
    ///
    /// The kernel takes exactly one [`UCred`] and checks it. Otherwise the send call fails with `EINVAL`
    /// or `EPERM` (`unix(7)`).
    ///
    /// # Errors
    /// Fails if the rest of the buffer is too short. Nothing is added then.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::ancillary::AncillaryMessageWriter;
    /// use tokio_seqpacket::{UCred, UnixSeqpacket};
    ///
    /// let (a, b) = UnixSeqpacket::pair()?;
    /// let mut control = [0; 64];
    /// let mut writer = AncillaryMessageWriter::new(&mut control);
    /// writer.add_ucreds(&[UCred::from_current_process()])?;
    /// a.send_with_ancillary(b"it is me", &mut writer).await?;
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn add_ucreds(&mut self, credentials: &[UCred]) -> Result<(), AddControlMessageError> {
        let len =
            credentials.len().checked_mul(UCred::WIRE_LEN).ok_or(AddControlMessageError(()))?;
        let data = self.reserve(libc::SCM_CREDENTIALS, len)?;
        for (slot, credentials) in data.chunks_exact_mut(UCred::WIRE_LEN).zip(credentials) {
            slot.copy_from_slice(&credentials.to_wire());
        }
        Ok(())
    }

    fn reserve(&mut self, kind: i32, len: usize) -> Result<&mut [u8], AddControlMessageError> {
        wire::reserve(self.buffer, &mut self.length, libc::SOL_SOCKET, kind, len)
            .ok_or(AddControlMessageError(()))
    }

    /// Returns the control data as the kernel takes it.
    pub(crate) fn control(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl std::error::Error for AddControlMessageError {}

impl fmt::Debug for AddControlMessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AddControlMessageError")
    }
}

impl fmt::Display for AddControlMessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the ancillary buffer is too short for the control message")
    }
}

impl From<AddControlMessageError> for io::Error {
    fn from(_: AddControlMessageError) -> Self {
        Self::from_raw_os_error(libc::ENOSPC)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_misaligned_buffer_is_used_from_its_first_aligned_byte() {
        #[repr(align(8))]
        struct Aligned([u8; 64]);
        let mut buffer = Aligned([0; 64]);
        assert_eq!(AncillaryMessageWriter::new(&mut buffer.0).capacity(), 64);
        let behind = 64 - AncillaryMessageWriter::BUFFER_ALIGN;
        assert_eq!(AncillaryMessageWriter::new(&mut buffer.0[1..]).capacity(), behind);
        assert_eq!(AncillaryMessageWriter::new(&mut buffer.0[1..4]).capacity(), 0);
        assert_eq!(AncillaryMessageWriter::new(&mut []).capacity(), 0);
    }

    #[test]
    fn what_does_not_fit_is_not_added() {
        let stdin = io::stdin();
        #[repr(align(8))]
        struct Aligned([u8; 24]);
        let mut buffer = Aligned([0; 24]);
        let mut writer = AncillaryMessageWriter::new(&mut buffer.0);
        assert!(writer.add_fds(&[stdin.as_fd(); 3]).is_err());
        assert!(writer.is_empty());
        assert!(writer.add_ucreds(&[UCred::new(0, 0, 0)]).is_err());
        writer.add_fds(&[stdin.as_fd(); 2]).unwrap();
        assert_eq!(writer.len(), 24);
        let error = io::Error::from(writer.add_fds(&[&stdin]).unwrap_err());
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    }
}
