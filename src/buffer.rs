//! Owned buffers ([`BoundedBuf`], [`BoundedBufMut`]) seen as slices.
//!
//! The traits are unsafe to implement: whoever does promises that `stable_ptr` stays valid for
//! `bytes_total` bytes, `bytes_init` of them initialised, as long as the buffer lives. Every block
//! here rests on that promise.
#![allow(unsafe_code, reason = "raw views into buffers whose traits speak in pointers")]

use std::any::Any;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::slice;

use tokio_uring::buf::{BoundedBuf, BoundedBufMut, IoBuf, IoBufMut};

use crate::stream::Lease;

/// The bytes to send: what is initialised, within the buffer's bounds.
fn filled<B: BoundedBuf>(buffer: &B) -> &[u8] {
    let len = buffer.bytes_init();
    if len == 0 {
        return &[];
    }
    // SAFETY: the pointer is valid for `bytes_init` initialised bytes (promise of the trait) and
    // the borrow of `buffer` keeps them where they are.
    unsafe { slice::from_raw_parts(buffer.stable_ptr(), len) }
}

/// The room to receive into: everything within the buffer's bounds.
fn room<B: BoundedBufMut>(buffer: &mut B) -> &mut [MaybeUninit<u8>] {
    let len = buffer.bytes_total();
    if len == 0 {
        return &mut [];
    }
    // SAFETY: the pointer is valid for `bytes_total` bytes (promise of the trait), the borrow is
    // exclusive, and MaybeUninit asks nothing of their contents. Callers only write initialised
    // bytes into it: the kernel does, or `copy_into`.
    unsafe { slice::from_raw_parts_mut(buffer.stable_mut_ptr().cast(), len) }
}

/// One owned buffer, or several: what a message is gathered from.
pub(crate) trait Parts: Send + 'static {
    fn count(&self) -> usize;
    /// The bytes of one part to send.
    fn part(&self, index: usize) -> &[u8];

    fn total(&self) -> usize {
        (0..self.count()).map(|index| self.part(index).len()).sum()
    }

    /// All parts. Not a reference to `self`: a future that holds this is Send where the parts are,
    /// Sync or not.
    fn slices(&self) -> Slices<'_> {
        match self.count() {
            1 => Slices::One([IoSlice::new(self.part(0))]),
            count => Slices::Many((0..count).map(|index| IoSlice::new(self.part(index))).collect()),
        }
    }
}

/// The parts of a message, without an allocation where there is one.
pub(crate) enum Slices<'a> {
    One([IoSlice<'a>; 1]),
    Many(Vec<IoSlice<'a>>),
}

impl<'a> Deref for Slices<'a> {
    type Target = [IoSlice<'a>];

    fn deref(&self) -> &Self::Target {
        match self {
            Self::One(one) => one,
            Self::Many(many) => many,
        }
    }
}

/// One owned buffer, or several: what a message is scattered into.
pub(crate) trait PartsMut: Send + 'static {
    /// The room of every part, in order.
    fn rooms(&mut self) -> impl Iterator<Item = &mut [MaybeUninit<u8>]>;

    fn capacity(&mut self) -> usize {
        self.rooms().map(|room| room.len()).sum()
    }

    /// Tell the buffers that their first `len` bytes together have been received.
    ///
    /// # Safety
    /// Those bytes of [`rooms`](Self::rooms) have been written.
    unsafe fn set_received(&mut self, len: usize);
}

/// Copy as much of a message as fits, and tell the buffers. Returns how much that is.
pub(crate) fn fill(parts: &mut impl PartsMut, message: &[u8]) -> usize {
    let mut rest = message;
    for room in parts.rooms() {
        let (now, later) = rest.split_at(rest.len().min(room.len()));
        for (slot, byte) in room.iter_mut().zip(now) {
            slot.write(*byte);
        }
        rest = later;
    }
    let len = message.len() - rest.len();
    // SAFETY: that many bytes have just been written, one room after the other.
    unsafe { parts.set_received(len) };
    len
}

/// A single buffer.
pub(crate) struct One<B>(pub(crate) B);

impl<B: BoundedBuf + Send> Parts for One<B> {
    fn count(&self) -> usize {
        1
    }

    fn part(&self, _index: usize) -> &[u8] {
        filled(&self.0)
    }
}

impl<B: BoundedBuf + Send> Parts for Vec<B> {
    fn count(&self) -> usize {
        self.len()
    }

    fn part(&self, index: usize) -> &[u8] {
        filled(&self[index])
    }
}

impl<B: BoundedBufMut + Send> PartsMut for One<B> {
    fn rooms(&mut self) -> impl Iterator<Item = &mut [MaybeUninit<u8>]> {
        std::iter::once(room(&mut self.0))
    }

    unsafe fn set_received(&mut self, len: usize) {
        debug_assert!(len <= self.0.bytes_total());
        // SAFETY: the caller's promise.
        unsafe { self.0.set_init(len) }
    }
}

impl<B: BoundedBufMut + Send> PartsMut for Vec<B> {
    fn rooms(&mut self) -> impl Iterator<Item = &mut [MaybeUninit<u8>]> {
        self.iter_mut().map(room)
    }

    unsafe fn set_received(&mut self, mut len: usize) {
        for buffer in self {
            let here = len.min(buffer.bytes_total());
            // SAFETY: the caller's promise; parts are filled one after the other.
            unsafe { buffer.set_init(here) }
            len -= here;
        }
    }
}

// SAFETY: the vector's bytes lie on the heap, where they stay when the lease is moved; its capacity is
// allocated and its length initialised.
unsafe impl IoBuf for Lease {
    fn stable_ptr(&self) -> *const u8 {
        self.bytes.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.bytes.len()
    }

    fn bytes_total(&self) -> usize {
        self.bytes.capacity()
    }
}

// SAFETY: as above.
unsafe impl IoBufMut for Lease {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.bytes.as_mut_ptr()
    }

    unsafe fn set_init(&mut self, pos: usize) {
        if self.bytes.len() < pos {
            // SAFETY: the caller says that so many bytes are initialised, within the capacity.
            unsafe { self.bytes.set_len(pos) };
        }
    }
}

/// A box whose type is known to the caller only, and which survives what is in it: the next
/// operation with buffers of the same type reuses it.
pub(crate) trait Shell: Any + Send {
    fn as_any(&mut self) -> &mut dyn Any;
}

impl<P: Send + 'static> Shell for Option<P> {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}
