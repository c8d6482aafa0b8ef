//! Room for messages whose size nobody knows: address space, not memory.
//!
//! An armed receive has to take whatever comes, up to the largest message there is. A [`Slot`] is
//! that much address space, mapped without reserving memory; pages become memory as the kernel
//! writes to them. Slots are handed out last in, first out, so that the busy ones stay few and in
//! the cache. The mappings are never undone, so a slot that is lost with an operation that never
//! settles is a loss of address space and nothing worse.
#![allow(unsafe_code, reason = "anonymous mappings shared with the kernel")]

use std::io;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

/// The largest message: 4 MiB in one piece (`KMALLOC_MAX_SIZE`) and `MAX_SKB_FRAGS` pages beside it,
/// 17 by default and 45 at most, rounded up. On a kernel that sends larger ones (64 KiB pages) they
/// are reported as cut.
pub(super) const SLOT_LEN: usize = (4 << 20) + (256 << 10);

/// Slots that are mapped in one piece.
const CHUNK: usize = 64;

/// Memory that a slot may keep when it is given back.
const KEPT: usize = 64 << 10;

/// Exclusive use of [`SLOT_LEN`] bytes.
#[derive(Debug)]
pub(super) struct Slot(NonNull<u8>);

// SAFETY: a slot is a range of a mapping that is never undone, and whoever has the Slot has that
// range alone.
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
                CHUNK * SLOT_LEN,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )?
        };
        let start = NonNull::new(chunk.cast::<u8>()).expect("mmap does not return null");
        free.extend((1..CHUNK).rev().map(|index| {
            // SAFETY: `index * SLOT_LEN` is within the mapping of CHUNK slots.
            Slot(unsafe { start.add(index * SLOT_LEN) })
        }));
        Ok(Slot(start))
    }

    pub(super) fn as_ptr(&self) -> *mut u8 {
        self.0.as_ptr()
    }

    /// The part of it that stays memory when it is given back.
    #[cfg(any(test, quarantine))]
    pub(super) fn start(&mut self) -> &mut [u8] {
        // SAFETY: the range is this slot's, which nobody else uses, and an anonymous mapping is
        // zeroed where nothing has been written.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_ptr(), KEPT) }
    }

    /// Give the slot back, of which the first `used` bytes have been written.
    pub(super) fn give_back(self, used: usize) {
        if used > KEPT {
            // SAFETY: the range lies within this slot, which nobody else uses; its contents are no
            // longer wanted.
            let advised = unsafe {
                madvise(self.0.as_ptr().add(KEPT).cast(), SLOT_LEN - KEPT, Advice::LinuxDontNeed)
            };
            // A refusal only costs memory.
            let _ = advised;
        }
        FREE.lock().unwrap_or_else(PoisonError::into_inner).push(self);
    }
}
