//! Room for messages whose size nobody knows: address space, not memory.
//!
//! An armed receive has to take whatever comes, up to the largest message there is. A [`Slot`] is
//! that much address space, mapped without reserving memory; pages become memory as the kernel
//! writes to them. Slots are handed out last in, first out, so that the busy ones stay few and in
//! the cache. Small messages and control data have places of their own, packed tightly: a page of memory
//! serves several slots. The mappings are never undone, so a slot that is lost with an operation that never
//! settles is a loss of address space and nothing worse.
#![allow(unsafe_code, reason = "anonymous mappings shared with the kernel")]

use std::io;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

use crate::ancillary::wire::MAX_CONTROL;

/// The largest message: 4 MiB in one piece (`KMALLOC_MAX_SIZE`) and `MAX_SKB_FRAGS` pages beside it,
/// 17 by default and 45 at most, rounded up. On a kernel that sends larger ones (64 KiB pages) they
/// are reported as cut.
pub(super) const SLOT_LEN: usize = (4 << 20) + (256 << 10);

/// Slots that are mapped in one piece.
const CHUNK: usize = 64;

/// Memory that a slot may keep when it is given back.
const KEPT: usize = 64 << 10;

/// Messages up to this size find room in front, and touch no page of the rest.
pub(super) const SMALL: usize = 512;

/// Where control data of the next slot begins; aligned for it.
const CONTROL_STRIDE: usize = MAX_CONTROL.next_multiple_of(64);

/// A mapping begins with the places for small messages, then those for control data. Whole pages, of
/// whatever size.
const FRONT: usize = (CHUNK * (SMALL + CONTROL_STRIDE)).next_multiple_of(64 << 10);

/// Exclusive use of [`SLOT_LEN`] bytes, [`SMALL`] bytes and [`MAX_CONTROL`] bytes.
#[derive(Debug)]
pub(super) struct Slot {
    chunk: NonNull<u8>,
    index: usize,
}

// SAFETY: a slot is three ranges of a mapping that is never undone, and whoever has the Slot has them
// alone.
unsafe impl Send for Slot {}

static FREE: Mutex<Vec<Slot>> = Mutex::new(Vec::new());

impl Slot {
    /// # Errors
    /// What `mmap(2)` says: the limit on address space (`RLIMIT_AS`) or on mappings is reached.
    pub(super) fn take() -> io::Result<Self> {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = free.pop() {
            return Ok(slot);
        }
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no other.
        let chunk = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                FRONT + CHUNK * SLOT_LEN,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )?
        };
        let start = NonNull::new(chunk.cast::<u8>()).expect("mmap does not return null");
        // SAFETY: the range is within the new mapping, which nobody else knows.
        let advised = unsafe { madvise(chunk, FRONT, Advice::LinuxNoHugepage) };
        // A refusal (a kernel without huge pages) costs memory at most.
        let _ = advised;
        free.extend((1..CHUNK).rev().map(|index| Slot { chunk: start, index }));
        Ok(Slot { chunk: start, index: 0 })
    }

    fn at(&self, offset: usize) -> *mut u8 {
        debug_assert!(offset < FRONT + CHUNK * SLOT_LEN);
        self.chunk.as_ptr().wrapping_add(offset)
    }

    pub(super) fn as_ptr(&self) -> *mut u8 {
        self.at(FRONT + self.index * SLOT_LEN)
    }

    pub(super) fn small_ptr(&self) -> *mut u8 {
        self.at(self.index * SMALL)
    }

    pub(super) fn control_ptr(&self) -> *mut u8 {
        self.at(CHUNK * SMALL + self.index * CONTROL_STRIDE)
    }

    pub(super) fn small(&mut self) -> &mut [u8; SMALL] {
        // SAFETY: the range is this slot's, which nobody else uses, and an anonymous mapping is
        // zeroed where nothing has been written.
        unsafe { &mut *self.small_ptr().cast() }
    }

    pub(super) fn control(&mut self) -> &mut [u8; MAX_CONTROL] {
        // SAFETY: as above.
        unsafe { &mut *self.control_ptr().cast() }
    }

    /// What stays memory when it is given back: small messages, control data, and the start of the
    /// rest.
    #[cfg(any(test, quarantine))]
    pub(super) fn pieces(&mut self) -> [&mut [u8]; 3] {
        // SAFETY: as above, and the three do not overlap.
        unsafe {
            [
                std::slice::from_raw_parts_mut(self.small_ptr(), SMALL),
                std::slice::from_raw_parts_mut(self.control_ptr(), MAX_CONTROL),
                std::slice::from_raw_parts_mut(self.as_ptr(), KEPT),
            ]
        }
    }

    /// Give the slot back, of which the first `used` bytes have been written.
    pub(super) fn give_back(self, used: usize) {
        if used > KEPT {
            // SAFETY: the range lies within this slot, which nobody else uses; its contents are no
            // longer wanted.
            let advised = unsafe {
                madvise(self.as_ptr().add(KEPT).cast(), SLOT_LEN - KEPT, Advice::LinuxDontNeed)
            };
            // A refusal only costs memory.
            let _ = advised;
        }
        FREE.lock().unwrap_or_else(PoisonError::into_inner).push(self);
    }
}
