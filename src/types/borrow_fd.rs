//! Borrowing a file descriptor for a lifetime of its own.

use std::os::fd::{AsFd, BorrowedFd};

/// Lends out a [`BorrowedFd<'a>`]: every `&'a T` where `T: AsFd`, and `BorrowedFd<'a>`.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use std::os::fd::AsFd;
/// use tokio_seqpacket::ancillary::AncillaryMessageWriter;
/// use tokio_seqpacket::borrow_fd::BorrowFd;
///
/// fn attach<'a>(
///     writer: &mut AncillaryMessageWriter<'a>,
///     fds: &[impl BorrowFd<'a>],
/// ) -> std::io::Result<()> {
///     Ok(writer.add_fds(fds)?)
/// }
///
/// let file = std::fs::File::open("/dev/null")?;
/// let mut control = [0; 64];
/// let mut writer = AncillaryMessageWriter::new(&mut control);
/// attach(&mut writer, &[&file])?;
/// attach(&mut writer, &[file.as_fd()])?;
/// # Ok(()) }
/// ```
pub trait BorrowFd<'a> {
    /// Returns the borrowed file descriptor.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use std::os::fd::AsRawFd;
    /// use tokio_seqpacket::borrow_fd::BorrowFd;
    ///
    /// let file = std::fs::File::open("/dev/null")?;
    /// // Borrowed from the file, not from the reference to it.
    /// let fd = { (&file).borrow_fd() };
    /// assert_eq!(fd.as_raw_fd(), file.as_raw_fd());
    /// # Ok(()) }
    /// ```
    fn borrow_fd(&self) -> BorrowedFd<'a>;
}

impl<'a, T: AsFd> BorrowFd<'a> for &'a T {
    fn borrow_fd(&self) -> BorrowedFd<'a> {
        (*self).as_fd()
    }
}

impl<'a> BorrowFd<'a> for BorrowedFd<'a> {
    fn borrow_fd(&self) -> BorrowedFd<'a> {
        *self
    }
}
