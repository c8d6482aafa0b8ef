//! [`SealedMemory`]: payloads beyond the largest message, passed as memory that cannot change.
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

/// The seals that make memory immutable: its length, its bytes, and the seals themselves.
const REQUIRED_SEALS: SealFlags =
    SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::WRITE).union(SealFlags::SEAL);

/// Immutable memory that goes to a peer with a message (`memfd_create(2)` with all seals).
///
/// [`UnixSeqpacket::send_large`] sends it and [`UnixSeqpacket::recv_large`] receives it. Nothing is
/// copied on the way, and a payload can have any size. It can be sent many times, to many peers.
/// Each maps the same pages.
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
    /// Makes a sealed copy of `bytes`.
    ///
    /// # Errors
    /// Those of `memfd_create(2)` and `write(2)`: no free descriptor or no memory.
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
    /// // Its owner cannot change it either.
    /// let mut file = File::from(OwnedFd::from(memory));
    /// assert!(file.write_all(b"other").is_err());
    /// # Ok(()) }
    /// ```
    pub fn new(bytes: &[u8]) -> io::Result<Self> {
        Self::from_reader(&mut &*bytes)
    }

    /// Seals all bytes that a reader yields.
    ///
    /// # Errors
    /// Those of [`new`](Self::new), and those of the reader.
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
            // EINVAL: the flag is unknown before Linux 6.3.
            Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create(c"seqpacket", flags)?,
            fd => fd?,
        };
        let mut file = std::fs::File::from(fd);
        io::copy(reader, &mut file)?;
        file.flush()?;
        let fd = OwnedFd::from(file);
        rustix::fs::fcntl_add_seals(&fd, REQUIRED_SEALS)?;
        Self::try_from(fd)
    }

    /// Returns the length in bytes.
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

    /// Returns whether it has no bytes.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::SealedMemory;
    ///
    /// // Empty memory is allowed, and can be mapped too.
    /// let nothing = SealedMemory::new(b"")?;
    /// assert!(nothing.is_empty() && nothing.map()?.is_empty());
    /// # Ok(()) }
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Maps the memory for reading.
    ///
    /// # Errors
    /// Those of `mmap(2)`: no free address space.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::SealedMemory;
    ///
    /// let memory = SealedMemory::new(&[7; 5000])?;
    /// let bytes = memory.map()?;
    /// assert!(bytes.iter().all(|byte| *byte == 7));
    /// // Another address, the same pages.
    /// assert_ne!(memory.map()?.as_ptr(), bytes.as_ptr());
    /// # Ok(()) }
    /// ```
    pub fn map(&self) -> io::Result<MappedMemory> {
        if self.is_empty() {
            return Ok(MappedMemory { start: NonNull::dangling(), len: 0 });
        }
        // SAFETY: with a null address and without MAP_FIXED the kernel chooses a range where nothing
        // is mapped (mmap(2)). So no memory that other code uses is replaced.
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

    /// Checks the seals of the memory and takes it over.
    ///
    /// # Errors
    /// `InvalidData` if the memory could still change: the descriptor is no memfd, or lacks a seal.
    /// The descriptor is closed then.
    fn try_from(fd: OwnedFd) -> io::Result<Self> {
        let (fd, len) = close::checked(fd, sealed_len)?;
        Ok(Self { fd, len })
    }
}

/// Returns the length of memory that is immutable.
fn sealed_len(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let seals = rustix::fs::fcntl_get_seals(fd).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidData, "the descriptor is no memfd: it has no seals")
    })?;
    if !seals.contains(REQUIRED_SEALS) {
        let missing = REQUIRED_SEALS.difference(seals);
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the memory is not sealed against change, {missing:?} is missing"),
        ));
    }
    // The seals hold for good (fcntl(2)), so the length does, too.
    let len = rustix::fs::fstat(fd)?.st_size;
    usize::try_from(len).map_err(|_| {
        let what = format!("{len} bytes of memory exceed the address space of this process");
        io::Error::new(io::ErrorKind::InvalidData, what)
    })
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

/// Sealed memory that is mapped for reading, from [`SealedMemory::map`].
///
/// It dereferences to its bytes, and outlives the [`SealedMemory`].
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

// SAFETY: `start` belongs to this value alone, and a mapping can be read and unmapped on any thread
// of the process (mmap(2)).
unsafe impl Send for MappedMemory {}
// SAFETY: a shared reference only reads, in `deref`. No thread or process can write these bytes:
// `SealedMemory` exists only with all `REQUIRED_SEALS`, which `from_reader` adds and `sealed_len`
// checks, and the kernel removes no seal (fcntl(2)).
unsafe impl Sync for MappedMemory {}

impl Deref for MappedMemory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `map` has mapped `len` bytes at `start`, or left a dangling pointer for `len` 0,
        // and only `drop` unmaps them. The bytes neither change nor go away: `SealedMemory` exists
        // only with all `REQUIRED_SEALS` (added in `from_reader`, checked in `sealed_len`), and the
        // kernel removes no seal (fcntl(2)).
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
            // SAFETY: `map` made this mapping with this length, and no other value unmaps it.
            // Slices of it borrow `self` (`deref`), so none is left when `self` is dropped.
            let unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
            debug_assert!(unmapped.is_ok(), "{unmapped:?}");
        }
    }
}

impl UnixSeqpacket {
    /// Sends a message together with a payload of any size, which is not copied.
    ///
    /// Returns the number of bytes of `message`, as [`send`](Self::send) does.
    ///
    /// # Cancel safety
    /// As for [`send`](Self::send): the message and its payload are sent whole, or never.
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

    /// Receives a message and the payload that came with it, if one did.
    ///
    /// The payload can be mapped and read safely, whatever the peer sends: its seals have been
    /// checked. `max_len` limits its length in bytes. A peer can send more than fits in memory, and
    /// reading may be charged to the reader's memory.
    ///
    /// # Cancel safety
    /// As for [`recv`](Self::recv): dropping the future loses no message.
    ///
    /// # Errors
    /// - `InvalidData` if the message came with anything but sealed memory, with a payload longer
    ///   than `max_len`, or with several descriptors.
    /// - `Other` if this process had no free descriptor for the payload.
    ///
    /// The message is lost with these errors, and its descriptors are closed. For others see
    /// [`UnixSeqpacket`].
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
        // Capacity for a second descriptor, so that it is noticed, and for what socket options add:
        // credentials, a pidfd, a time, a security label.
        let mut control = [0; space(2 * FD_LEN) + space(UCred::WIRE_LEN) + space(FD_LEN) + 512];
        let mut buffers = [IoSliceMut::new(buffer)];
        let (info, ancillary) = self.recv_message(&mut buffers, &mut control).await?;
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        let truncated = ancillary.kernel_truncated();
        let failed = ancillary.messages().any(|message| match message {
            AncillaryMessage::FileDescriptors(fds) => fds.errors().next().is_some(),
            _ => false,
        });
        let mut came = AncillaryBuffer::new();
        came.fill(ancillary);
        let payload = match came.fds().len() {
            1 if truncated || failed => {
                return Err(invalid(
                    "more than one descriptor came, and this process has none free for the rest"
                        .into(),
                ));
            }
            0 if truncated || failed => {
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
