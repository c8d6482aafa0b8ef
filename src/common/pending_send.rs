//! A send that waits in its socket's queue. It owns the whole message: bytes, control data, descriptors.
#![allow(unsafe_code, reason = "a header that points into what its owner owns; sendmsg(2)")]

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::ancillary::AncillaryBuffer;
use crate::ancillary::wire::{self, MAX_CONTROL};
use crate::buf::owned::{ErasedBuffers, Parts};
use crate::common::policy::COPY_MAX;
use crate::sys::{self, empty_header, header, set_control};

pub(crate) fn vector(bytes: *const u8, len: usize) -> libc::iovec {
    libc::iovec { iov_base: bytes.cast_mut().cast(), iov_len: len }
}

/// Empty payloads of one socket, for the next sends that have to wait.
#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "payloads stay in their boxes")]
pub(crate) struct SparePayloads(Vec<Box<PendingSend>>);

impl SparePayloads {
    /// How many are kept.
    const MOST_SPARES: usize = 64;

    pub(crate) fn take(&mut self) -> Option<Box<PendingSend>> {
        self.0.pop()
    }

    /// Keeps one, unless there are enough.
    pub(crate) fn keep(&mut self, spare: Box<PendingSend>) {
        if self.0.len() < Self::MOST_SPARES {
            self.0.push(spare);
        }
    }
}

/// A send that has to wait. It owns its bytes and descriptors.
pub(crate) struct PendingSend {
    header: libc::msghdr,
    vectors: Vec<libc::iovec>,
    control: Vec<u8>,
    /// Copies for a caller that lent its bytes.
    bytes: Vec<u8>,
    /// Duplicates for a caller that lent its descriptors.
    fds: Vec<OwnedFd>,
    /// What a caller gave away: `Option<(P, AncillaryBuffer)>`.
    given: Option<Box<dyn ErasedBuffers>>,
    /// Whether `given` is what is sent.
    is_given: bool,
    /// Only `bytes` is sent. The header is not used.
    is_bytes: bool,
}

// SAFETY: the pointers in `header` and `vectors` lead into memory that the payload owns, in `bytes`, `control` and `given`,
// which are all Send. It stays in place when the payload moves to another thread.
unsafe impl Send for PendingSend {}

impl PendingSend {
    fn empty() -> Box<Self> {
        Box::new(Self {
            header: empty_header(),
            vectors: Vec::new(),
            control: Vec::new(),
            bytes: Vec::new(),
            fds: Vec::new(),
            given: None,
            is_given: false,
            is_bytes: false,
        })
    }

    /// Creates a payload with a copy of bytes.
    pub(crate) fn copy_bytes(bytes: &[u8], spare: Option<Box<Self>>) -> Box<Self> {
        let mut payload = spare.unwrap_or_else(Self::empty);
        payload.bytes.reserve_exact(bytes.len());
        payload.bytes.extend_from_slice(bytes);
        payload.is_bytes = true;
        payload
    }

    /// Creates a payload with a copy of the message and duplicates of its descriptors.
    ///
    /// The kernel resolves the raw fds each time it tries to send, and by then they may refer to other files.
    ///
    /// # Errors
    /// Fails if no descriptor is left for a duplicate, or if a raw fd is not open (`EBADF`).
    pub(crate) fn copy(
        message: &[IoSlice<'_>],
        control: &[u8],
        spare: Option<Box<Self>>,
    ) -> io::Result<Box<Self>> {
        let mut payload = spare.unwrap_or_else(Self::empty);
        payload.bytes.reserve_exact(message.iter().map(|part| part.len()).sum());
        for part in message {
            payload.bytes.extend_from_slice(part);
        }
        payload.vectors.push(vector(payload.bytes.as_ptr(), payload.bytes.len()));
        payload.control.extend_from_slice(control);
        for item in wire::items(control).filter(wire::Item::is_rights) {
            for at in item.data.step_by(wire::FD_LEN) {
                let Some(fd) = wire::raw_fd(control, at / wire::FD_LEN) else { break };
                let duplicate = duplicate(fd)?;
                payload.control[at..][..wire::FD_LEN]
                    .copy_from_slice(&duplicate.as_raw_fd().to_ne_bytes());
                if cfg!(planted = "second_fd_leaked") && payload.fds.len() == 1 {
                    std::mem::forget(duplicate.try_clone());
                }
                payload.fds.push(duplicate);
            }
        }
        Ok(payload.pointed())
    }

    /// Returns the payload without its contents, for the next send that has to wait. `None` if it has grown large. The caller
    /// has taken what was given.
    pub(crate) fn emptied(mut self: Box<Self>) -> Option<Box<Self>> {
        self.bytes.clear();
        if !std::mem::take(&mut self.is_bytes) {
            self.header = empty_header();
            self.vectors.clear();
            self.control.clear();
            self.fds.clear();
            self.is_given = false;
        }
        (self.bytes.capacity() <= COPY_MAX).then_some(self)
    }

    /// Takes what the caller gives, which runs the buffers' own methods.
    ///
    /// # Errors
    /// Fails for too many descriptors, and returns everything.
    pub(crate) fn given<P: Parts>(
        parts: P,
        ancillary: AncillaryBuffer,
        spare: Option<Box<Self>>,
    ) -> Result<Box<Self>, (io::Error, P, AncillaryBuffer)> {
        let mut payload = spare.unwrap_or_else(Self::empty);
        if !ancillary.is_empty() {
            let mut control = [0; MAX_CONTROL];
            match ancillary.encode(&mut control) {
                Ok(len) => payload.control.extend_from_slice(&control[..len]),
                Err(error) => return Err((error, parts, ancillary)),
            }
        }
        type Given<P> = Option<(P, AncillaryBuffer)>;
        let payload_ref = &mut *payload;
        let fits = |erased: &mut Box<dyn ErasedBuffers>| erased.as_any().is::<Given<P>>();
        let erased = match payload_ref.given.take_if(fits) {
            Some(erased) => payload_ref.given.insert(erased),
            None => payload_ref.given.insert(Box::new(None::<(P, AncillaryBuffer)>)),
        };
        let slot = erased.as_any().downcast_mut::<Given<P>>().expect("checked or made above");
        payload_ref.is_given = true;
        let (parts, _) = slot.insert((parts, ancillary));
        for index in 0..parts.count() {
            let part = parts.part(index);
            payload_ref.vectors.push(vector(part.as_ptr(), part.len()));
        }
        Ok(payload.pointed())
    }

    /// Returns the header for the kernel to read, and the message if plain `send(2)` is enough for it.
    ///
    /// The pointers are valid as long as the box is neither changed nor dropped.
    pub(crate) fn pointers(&self) -> (*const libc::msghdr, Option<libc::iovec>) {
        let plain = match &self.vectors[..] {
            _ if self.is_bytes => Some(vector(self.bytes.as_ptr(), self.bytes.len())),
            [one] if self.control.is_empty() => Some(*one),
            _ => None,
        };
        (&raw const self.header, plain)
    }

    /// Returns what [`given`](Self::given) took, and the rest, which can be kept for another send.
    pub(crate) fn take<P: Parts>(mut self: Box<Self>) -> (P, AncillaryBuffer, Option<Box<Self>>) {
        let given = self.given.as_mut().and_then(|erased| {
            erased.as_any().downcast_mut::<Option<(P, AncillaryBuffer)>>()?.take()
        });
        let (parts, ancillary) = given.expect("taken once, by the caller who knows the type");
        (parts, ancillary, self.emptied())
    }

    fn pointed(mut self: Box<Self>) -> Box<Self> {
        self.header = header(self.vectors.as_mut_ptr(), self.vectors.len());
        if !self.control.is_empty() {
            set_control(&mut self.header, self.control.as_mut_ptr(), self.control.len());
        }
        self
    }

    /// Sends without waiting and without a ring.
    pub(crate) fn send_now(&self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        match self.pointers() {
            // SAFETY: the vector spans bytes that this payload owns, and `&self` keeps them in place. send(2) only reads them.
            (_, Some(bytes)) => sys::retry(|| unsafe {
                libc::send(fd.as_raw_fd(), bytes.iov_base, bytes.iov_len, sys::SEND_NOW)
            }),
            // SAFETY: the header points into what this payload owns (`pointed`), and `&self` keeps it in place.
            (header, None) => sys::retry(|| unsafe { sys::sendmsg(fd, header) }),
        }
    }

    /// Returns how many descriptors go with the message.
    pub(crate) fn count_fds(&self) -> usize {
        wire::count_fds(&self.control)
    }

    /// Returns what can be kept of a payload that has been sent, and what its caller gets back. If the caller gave something,
    /// it gets all of the payload, and otherwise nothing.
    pub(crate) fn sent(self: Box<Self>) -> (Option<Box<Self>>, Option<Box<Self>>) {
        if self.is_given { (None, Some(self)) } else { (self.emptied(), None) }
    }
}

/// Duplicates a descriptor that the caller has lent as a raw fd.
fn duplicate(fd: i32) -> io::Result<OwnedFd> {
    // SAFETY: fcntl(2) with F_DUPFD_CLOEXEC takes any integer, and returns EBADF for one that is no open descriptor.
    let duplicate = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    if duplicate == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fcntl(2) has just created this descriptor, and no other value refers to it.
    Ok(unsafe { OwnedFd::from_raw_fd(duplicate) })
}

impl std::fmt::Debug for PendingSend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PendingSend").field("fds", &self.fds).finish_non_exhaustive()
    }
}
