//! Memory for the receives of one batch: address space for the largest message each, and for all control data.
//!
//! An attempt takes the whole message, whatever the buffer of the receive that claims it. The kernel writes here during one
//! `io_uring_enter(2)`, and the bytes are copied out before the next batch. So a ring needs as many slots as a batch has
//! receives. They are mapped when the ring is made: a refusal (`RLIMIT_AS`, `vm.overcommit_memory=2`, locked memory) means a
//! smaller batch or no ring, and never an error later.
#![allow(unsafe_code, reason = "anonymous mappings that the kernel writes to")]

use std::io;
use std::ptr::NonNull;

use rustix::mm::{
    Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap_anonymous, mprotect, munlock, munmap,
};

use crate::ancillary::wire::MAX_CONTROL;
use crate::sys::LARGEST_MESSAGE;

/// Bytes of a slot: an attempt takes any message.
pub(super) const SLOT_LEN: usize = LARGEST_MESSAGE;

/// Distance of two slots. The odd number of cache lines keeps the starts of slots in different sets of the cache.
const STRIDE: usize = SLOT_LEN + 17 * 64;

/// Distance of the control data of two slots, aligned for `cmsghdr`.
const CONTROL_STRIDE: usize = MAX_CONTROL.next_multiple_of(64);

/// Bytes of memory that a slot keeps after a large message.
const MOST_RESIDENT: usize = 64 << 10;

/// How many slots to ask for, in this order.
pub(super) const COUNTS: [usize; 3] = [32, 8, 2];

/// Length of what lies behind the slots: one byte, in whole pages of any size.
const MARK_LEN: usize = 64 << 10;

/// The slots of one ring.
#[derive(Debug)]
pub(super) struct RecvSlots {
    start: NonNull<u8>,
    count: usize,
}

// SAFETY: only this value refers to the mapping, and a mapping belongs to the process (mmap(2)), not to a thread.
unsafe impl Send for RecvSlots {}

impl RecvSlots {
    /// Maps the first of `counts` for which there is address space.
    ///
    /// # Errors
    /// Returns the errors of `mmap(2)` and `mprotect(2)`: no address space, or more memory than the kernel may promise.
    pub(super) fn new(counts: &[usize]) -> io::Result<Self> {
        let (most, fewer) = counts.split_first().expect("at least one count");
        fewer.iter().fold(Self::map(*most), |slots, count| slots.or_else(|_| Self::map(*count)))
    }

    fn map(count: usize) -> io::Result<Self> {
        let len = Self::len(count);
        // Under mlockall(MCL_FUTURE) a mapping is populated at once unless it is inaccessible. So it is made inaccessible,
        // unlocked, and made accessible then (`inaccessible_memory_that_is_opened_later_is_not_locked` in kernel_facts).
        // SAFETY: a new anonymous mapping at an address of the kernel's choice overlaps with no other (mmap(2)).
        let start = unsafe {
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
            mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::empty(), flags)?
        };
        let slots = Self { start: NonNull::new(start.cast()).expect("mmap(2) is not at 0"), count };
        // SAFETY: the range is the mapping made above, and no reference to it exists yet. The mark lies in its last
        // `MARK_LEN` bytes, which `len` includes, and is written after mprotect(2) made them writable.
        unsafe {
            munlock(start, len)?;
            mprotect(start, len, MprotectFlags::READ | MprotectFlags::WRITE)?;
            // Small messages use one page of each slot. A kernel without huge pages refuses this, which does no harm.
            let _ = madvise(start, len, Advice::LinuxNoHugepage);
            // A forked child, which does not own the ring, reads zero there.
            let mark = slots.start.as_ptr().add(len - MARK_LEN);
            madvise(mark.cast(), MARK_LEN, Advice::LinuxWipeOnFork)?;
            mark.write_volatile(1);
        }
        Ok(slots)
    }

    /// Returns whether this process has mapped them, and not one that it was forked from.
    pub(super) fn are_own(&self) -> bool {
        let len = Self::len(self.count);
        // SAFETY: the byte lies in the mapping, where `map` wrote it, and no reference to it exists. After `map` only the
        // kernel writes there (MADV_WIPEONFORK in madvise(2)), before a forked child runs.
        unsafe { self.start.as_ptr().add(len - MARK_LEN).read_volatile() == 1 }
    }

    const fn len(count: usize) -> usize {
        (count * (STRIDE + CONTROL_STRIDE)).next_multiple_of(MARK_LEN) + MARK_LEN
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    fn at(&self, offset: usize) -> *mut u8 {
        debug_assert!(offset < Self::len(self.count) - MARK_LEN);
        // SAFETY: the offset is within the mapping. `payload` and `control` assert that their slot is below `count`, for which
        // `map` made the mapping long enough.
        unsafe { self.start.as_ptr().add(offset) }
    }

    /// Returns where the payload of a slot lies: `SLOT_LEN` bytes.
    pub(super) fn payload(&self, slot: usize) -> *mut u8 {
        assert!(slot < self.count);
        self.at(slot * STRIDE)
    }

    /// Returns where the control data of a slot lies: `MAX_CONTROL` bytes.
    pub(super) fn control(&self, slot: usize) -> *mut u8 {
        assert!(slot < self.count);
        self.at(self.count * STRIDE + slot * CONTROL_STRIDE)
    }

    /// Returns the memory of a large message to the kernel.
    pub(super) fn trim(&mut self, slot: usize, len: usize) {
        if len > MOST_RESIDENT {
            // Whole pages, of any size.
            let page = MOST_RESIDENT;
            let from = (self.payload(slot) as usize + MOST_RESIDENT).next_multiple_of(page);
            let to = (self.payload(slot) as usize + len.min(SLOT_LEN)) / page * page;
            if from < to {
                // SAFETY: the pages lie within this slot by the rounding above, and `ring.rs` trims a slot after its contents were
                // copied out. `&mut self` excludes other readers.
                let advised = unsafe { madvise(from as *mut _, to - from, Advice::LinuxDontNeed) };
                // A refusal costs memory only.
                let _ = advised;
            }
        }
    }
}

impl Drop for RecvSlots {
    fn drop(&mut self) {
        // SAFETY: `map` made the mapping with this length. No reference to it exists: `ring.rs` reads slots during a
        // batch only. It drops them when no operation is in flight, and leaks them otherwise.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), Self::len(self.count)) };
        debug_assert!(unmapped.is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_do_not_overlap() {
        let slots = RecvSlots::new(&COUNTS).unwrap();
        let mut ranges: Vec<_> = (0..slots.count())
            .flat_map(|slot| {
                let (payload, control) =
                    (slots.payload(slot) as usize, slots.control(slot) as usize);
                [(payload, payload + SLOT_LEN), (control, control + MAX_CONTROL)]
            })
            .collect();
        ranges.sort_unstable();
        assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0));
        let end = slots.start.as_ptr() as usize + RecvSlots::len(slots.count()) - MARK_LEN;
        assert!(ranges.last().unwrap().1 <= end);
    }
}
