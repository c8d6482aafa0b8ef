//! Memory for the receives of one batch: address space for the largest message each, and for all control data.
//!
//! An attempt takes the whole message, whatever the buffer of the receive that claims it. The kernel writes here during
//! one `io_uring_enter(2)`; what it wrote is copied out before the next batch. So a ring needs as many slots as a batch
//! has receives, mapped when the ring is made: a refusal (`RLIMIT_AS`, `vm.overcommit_memory=2`, locked memory) means a
//! smaller batch or no ring, never an error later.
#![allow(unsafe_code, reason = "anonymous mappings that the kernel writes to")]

use std::io;
use std::ptr::NonNull;

use rustix::mm::{
    Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap_anonymous, mprotect, munlock, munmap,
};

use crate::ancillary::wire::MAX_CONTROL;
use crate::sys::LARGEST_MESSAGE;

/// An attempt takes any message.
pub(super) const SLOT_LEN: usize = LARGEST_MESSAGE;

/// Distance of two slots. The odd number of cache lines keeps the starts of slots in different sets of the cache.
const STRIDE: usize = SLOT_LEN + 17 * 64;

/// Distance of control data of two slots; aligned for `cmsghdr`.
const CONTROL_STRIDE: usize = MAX_CONTROL.next_multiple_of(64);

/// Memory that a slot keeps after a large message.
const MOST_RESIDENT: usize = 64 << 10;

/// How many slots to ask for, one after the other.
pub(super) const COUNTS: [usize; 3] = [32, 8, 2];

/// Behind the slots: one byte, in whole pages of whatever size.
const MARK_LEN: usize = 64 << 10;

/// The slots of one ring.
#[derive(Debug)]
pub(super) struct RecvSlots {
    start: NonNull<u8>,
    count: usize,
}

// SAFETY: the mapping belongs to this value alone, and is as good on one thread as on another.
unsafe impl Send for RecvSlots {}

impl RecvSlots {
    /// The first of `counts` for which there is address space.
    ///
    /// # Errors
    /// What `mmap(2)` or `mprotect(2)` say: no address space, or no memory may be promised.
    pub(super) fn new(counts: &[usize]) -> io::Result<Self> {
        let (most, fewer) = counts.split_first().expect("a number");
        fewer.iter().fold(Self::map(*most), |slots, count| slots.or_else(|_| Self::map(*count)))
    }

    fn map(count: usize) -> io::Result<Self> {
        let len = Self::len(count);
        // Under mlockall(MCL_FUTURE) a mapping is populated at once unless it is inaccessible; so it is made that way,
        // unlocked, and opened then.
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no other.
        let start = unsafe {
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
            mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::empty(), flags)?
        };
        let slots = Self { start: NonNull::new(start.cast()).expect("mmap(2) is not at 0"), count };
        // SAFETY: the range is the mapping made above, which nothing refers to yet.
        unsafe {
            munlock(start, len)?;
            mprotect(start, len, MprotectFlags::READ | MprotectFlags::WRITE)?;
            // One page of each is used by small messages. Refused by a kernel without huge pages, which is as good.
            let _ = madvise(start, len, Advice::LinuxNoHugepage);
            // Zero in a forked child, whose ring this is not.
            let mark = slots.start.as_ptr().add(len - MARK_LEN);
            madvise(mark.cast(), MARK_LEN, Advice::LinuxWipeOnFork)?;
            mark.write_volatile(1);
        }
        Ok(slots)
    }

    /// Whether this process has made them, and not one that it was forked from.
    pub(super) fn are_own(&self) -> bool {
        let len = Self::len(self.count);
        // SAFETY: the byte lies in the mapping, as `map` has it, and no reference to it exists. Only the kernel writes there
        // after `map`, before a forked child runs.
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
        // SAFETY: within the mapping, as every caller's offset is: `slot` is below `count`.
        unsafe { self.start.as_ptr().add(offset) }
    }

    /// Where the payload of a slot lies: `SLOT_LEN` bytes.
    pub(super) fn payload(&self, slot: usize) -> *mut u8 {
        assert!(slot < self.count);
        self.at(slot * STRIDE)
    }

    /// Where the control data of a slot lies: `MAX_CONTROL` bytes.
    pub(super) fn control(&self, slot: usize) -> *mut u8 {
        assert!(slot < self.count);
        self.at(self.count * STRIDE + slot * CONTROL_STRIDE)
    }

    /// Gives memory of a large message back to the kernel.
    pub(super) fn trim(&mut self, slot: usize, len: usize) {
        if len > MOST_RESIDENT {
            // Whole pages, of whatever size.
            let page = MOST_RESIDENT;
            let from = (self.payload(slot) as usize + MOST_RESIDENT).next_multiple_of(page);
            let to = (self.payload(slot) as usize + len.min(SLOT_LEN)) / page * page;
            if from < to {
                // SAFETY: the pages lie within this slot, whose contents have been copied out; no reference to them
                // exists (`&mut self`).
                let advised = unsafe { madvise(from as *mut _, to - from, Advice::LinuxDontNeed) };
                // A refusal costs memory only.
                let _ = advised;
            }
        }
    }
}

impl Drop for RecvSlots {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this length. Nothing refers to it: slots are read through
        // `&self`, and the ring drops or leaks them only when no operation is in flight (`ring.rs`).
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
