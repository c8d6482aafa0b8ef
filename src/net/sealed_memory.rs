//! [`SealedMemory`]: payloads beyond the largest message, handed over as memory that cannot change.
#![allow(unsafe_code, reason = "mapping a sealed memfd, and the slice it is")]

use std::fmt;
use std::io::{self, IoSliceMut, Read, Write};
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use crate::ancillary::wire::{FD_LEN, space};
use crate::ancillary::{AncillaryBuffer, AncillaryMessage, AncillaryMessageWriter};
use crate::net::socket::UnixSeqpacket;
use crate::types::message_info::MessageInfo;
use crate::types::ucred::UCred;
use crate::util::close;

/// What makes memory unchangeable: neither its length nor its bytes, nor these seals.
const SEALS: SealFlags =
    SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::WRITE).union(SealFlags::SEAL);

/// Memory that nobody can change any more (`memfd_create(2)` with all seals), to be handed to a peer with
/// a message: [`UnixSeqpacket::send_large`], [`UnixSeqpacket::recv_large`].
///
/// Nothing is copied on the way, and a payload can have any size. It can be sent many times, to many
/// peers; each maps the same pages.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use tokio_seqpacket::{SealedMemory, UnixSeqpacket};
///
/// let (a, b) = UnixSeqpacket::pair()?;
/// let frame = SealedMemory::new(&vec![7; 16 << 20])?;
/// a.send_large(b"frame 1", &frame).await?;
///
/// let mut buffer = [0; 64];
/// let (info, payload) = b.recv_large(&mut buffer, 64 << 20).await?;
/// assert_eq!(&buffer[..info.bytes_read()], b"frame 1");
/// let bytes = payload.expect("it came with one").map()?;
/// assert_eq!(bytes.len(), 16 << 20);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct SealedMemory {
    fd: OwnedFd,
    len: usize,
}

impl SealedMemory {
    /// A sealed copy of `bytes`.
    ///
    /// # Errors
    /// As `memfd_create(2)` and `write(2)`: no descriptor or no memory left.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use std::fs::File;
    /// use std::io::Write;
    /// use std::os::fd::OwnedFd;
    /// use tokio_seqpacket::SealedMemory;
    ///
    /// let memory = SealedMemory::new(b"frame")?;
    /// assert_eq!(&memory.map()?[..], b"frame");
    /// // Not even its owner can change it.
    /// let mut file = File::from(OwnedFd::from(memory));
    /// assert!(file.write_all(b"other").is_err());
    /// # Ok(()) }
    /// ```
    pub fn new(bytes: &[u8]) -> io::Result<Self> {
        Self::from_reader(&mut &*bytes)
    }

    /// Seal all that a reader yields.
    ///
    /// # Errors
    /// As [`new`](Self::new), and what the reader returns.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::SealedMemory;
    ///
    /// let memory = SealedMemory::from_reader(&mut std::fs::File::open("/proc/self/comm")?)?;
    /// let bytes = memory.map()?;
    /// assert_eq!((bytes.len(), memory.is_empty()), (memory.len(), false));
    /// # Ok(()) }
    /// ```
    pub fn from_reader(reader: &mut impl Read) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = match rustix::fs::memfd_create(c"seqpacket", flags | MemfdFlags::NOEXEC_SEAL) {
            // Linux before 6.3.
            Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create(c"seqpacket", flags)?,
            fd => fd?,
        };
        let mut file = std::fs::File::from(fd);
        io::copy(reader, &mut file)?;
        file.flush()?;
        let fd = OwnedFd::from(file);
        rustix::fs::fcntl_add_seals(&fd, SEALS)?;
        Self::try_from(fd)
    }

    /// Bytes.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::SealedMemory;
    ///
    /// assert_eq!(SealedMemory::new(&[0; 5000])?.len(), 5000);
    /// # Ok(()) }
    /// ```
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::SealedMemory;
    ///
    /// // That is allowed, and can be mapped too.
    /// let nothing = SealedMemory::new(b"")?;
    /// assert!(nothing.is_empty() && nothing.map()?.is_empty());
    /// # Ok(()) }
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Map it, to be read.
    ///
    /// # Errors
    /// As `mmap(2)`: no address space left.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::SealedMemory;
    ///
    /// let memory = SealedMemory::new(&[7; 5000])?;
    /// let bytes = memory.map()?;
    /// assert!(bytes.iter().all(|byte| *byte == 7));
    /// // Another place, the same pages.
    /// assert_ne!(memory.map()?.as_ptr(), bytes.as_ptr());
    /// # Ok(()) }
    /// ```
    pub fn map(&self) -> io::Result<MappedMemory> {
        if self.is_empty() {
            return Ok(MappedMemory { start: NonNull::dangling(), len: 0 });
        }
        // SAFETY: the kernel chooses the place, so nothing that is mapped already is touched.
        let start = unsafe {
            let (access, flags) = (ProtFlags::READ, MapFlags::SHARED);
            rustix::mm::mmap(std::ptr::null_mut(), self.len, access, flags, &self.fd, 0)?
        };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(MappedMemory { start, len: self.len })
    }
}

impl TryFrom<OwnedFd> for SealedMemory {
    type Error = io::Error;

    /// # Errors
    /// `InvalidData` if the memory could still change: no memfd, or one without all seals.
    fn try_from(fd: OwnedFd) -> io::Result<Self> {
        let (fd, len) = close::checked(fd, sealed_len)?;
        Ok(Self { fd, len })
    }
}

/// The length of memory that cannot change any more.
fn sealed_len(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let seals = rustix::fs::fcntl_get_seals(fd).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidData, "the descriptor is no memfd: it has no seals")
    })?;
    if !seals.contains(SEALS) {
        let missing = SEALS.difference(seals);
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the memory is not sealed against change, {missing:?} is missing"),
        ));
    }
    // Sealed: this stays true.
    usize::try_from(rustix::fs::fstat(fd)?.st_size)
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

impl From<SealedMemory> for OwnedFd {
    fn from(memory: SealedMemory) -> Self {
        memory.fd
    }
}

impl AsFd for SealedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Sealed memory, mapped to be read: dereferences to its bytes. Outlives the [`SealedMemory`].
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use tokio_seqpacket::{MappedMemory, SealedMemory};
///
/// let bytes: MappedMemory = SealedMemory::new(b"a frame")?.map()?;
/// // A slice like any other, for every thread.
/// let counting = std::thread::spawn(move || bytes.iter().filter(|byte| **byte == b'a').count());
/// assert_eq!(counting.join().unwrap(), 2);
/// # Ok(()) }
/// ```
pub struct MappedMemory {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: bytes that nobody can write are read.
unsafe impl Send for MappedMemory {}
// SAFETY: as above.
unsafe impl Sync for MappedMemory {}

impl Deref for MappedMemory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` bytes are mapped at `start` until this is dropped. They can neither change nor
        // go away: SealedMemory has checked the seals against writing and shrinking, and that no
        // seal can be taken off is the kernel's promise (fcntl(2)).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl fmt::Debug for MappedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MappedMemory").field("len", &self.len).finish()
    }
}

impl Drop for MappedMemory {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: mapped in `map`, with this length, and nobody borrows it any more.
            let unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
            debug_assert!(unmapped.is_ok(), "{unmapped:?}");
        }
    }
}

impl UnixSeqpacket {
    /// Send a message together with a payload of any size, which is not copied. Cancel safe as
    /// [`send`](Self::send).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::{SealedMemory, UnixSeqpacket};
    ///
    /// let (a, b) = UnixSeqpacket::pair()?;
    /// let payload = SealedMemory::new(b"of any size")?;
    /// a.send_large(b"name", &payload).await?;
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub async fn send_large(&self, message: &[u8], payload: &SealedMemory) -> io::Result<usize> {
        let mut control = [0; space(FD_LEN)];
        let mut writer = AncillaryMessageWriter::new(&mut control);
        writer.add_fds(&[payload.as_fd()])?;
        self.send_with_ancillary(message, &mut writer).await
    }

    /// Receive a message, and the payload that came with it, if one did.
    ///
    /// Whatever the peer sends, what is returned can be mapped and read safely: the seals have been
    /// checked. `max_len` limits its length, since reading costs memory, which may be charged to the
    /// reader: a peer can send more than there is.
    ///
    /// # Cancel safety
    /// As [`recv`](Self::recv).
    ///
    /// # Errors
    /// `InvalidData` if what came with the message is no sealed memory, is longer than `max_len`, or is
    /// more than one descriptor. `Other` if this process had no free descriptor for it. The message is gone then, its
    /// descriptors are closed. Else see [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::{SealedMemory, UnixSeqpacket};
    ///
    /// let (a, b) = UnixSeqpacket::pair()?;
    /// a.send_large(b"name", &SealedMemory::new(&[7; 5000])?).await?;
    /// a.send(b"without").await?;
    /// let mut buffer = [0; 64];
    /// let (_info, payload) = b.recv_large(&mut buffer, 1 << 20).await?;
    /// assert_eq!(payload.expect("it came with one").map()?[..], [7; 5000]);
    /// let (info, payload) = b.recv_large(&mut buffer, 1 << 20).await?;
    /// assert!(payload.is_none() && info.bytes_read() == 7);
    /// # Ok(()) }
    /// ```
    pub async fn recv_large(
        &self,
        buffer: &mut [u8],
        max_len: usize,
    ) -> io::Result<(MessageInfo, Option<SealedMemory>)> {
        // Room for a second descriptor, so that it is noticed, and for what socket options add: credentials, a pidfd, a time,
        // a security label.
        let mut control = [0; space(2 * FD_LEN) + space(UCred::WIRE_LEN) + space(FD_LEN) + 512];
        let mut buffers = [IoSliceMut::new(buffer)];
        let (info, ancillary) = self.recv_message(&mut buffers, &mut control).await?;
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        let cut = ancillary.kernel_truncated();
        let failed = ancillary.messages().any(|message| match message {
            AncillaryMessage::FileDescriptors(fds) => fds.errors().next().is_some(),
            _ => false,
        });
        let mut came = AncillaryBuffer::new();
        came.fill(ancillary);
        let payload = match came.fds().len() {
            1 if cut || failed => {
                return Err(invalid(
                    "more than one descriptor came, and this process has none free for the rest"
                        .into(),
                ));
            }
            0 if cut || failed => {
                return Err(io::Error::other(
                    "the payload of the message is lost: this process has no free descriptor \
                     (RLIMIT_NOFILE, ulimit -n) for it, or a security module keeps it back",
                ));
            }
            0 => None,
            1 => came.take_fds().pop().map(SealedMemory::try_from).transpose()?,
            count => return Err(invalid(format!("{count} descriptors came, not one"))),
        };
        match &payload {
            Some(payload) if payload.len() > max_len => Err(invalid(format!(
                "a payload of {} bytes exceeds the limit of {max_len}",
                payload.len()
            ))),
            _ => Ok((info, payload)),
        }
    }
}
