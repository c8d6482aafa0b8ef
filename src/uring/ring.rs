//! One ring, and one batch at a time through it. No other file uses [`IoUring`].
//!
//! Every operation of a batch has `MSG_DONTWAIT`, and no entry has `LINK`, `DRAIN` or `ASYNC`. So the kernel completes each
//! within `io_uring_enter(2)`: it arms nothing and hands nothing to its worker threads. This is shown by
//! `what_must_not_wait_completes_within_the_call_that_submits_it` in `tests/kernel_facts.rs`.
//!
//! [`Ring::run`] returns when each operation has been reported. So the kernel has no pointer of this process between two
//! batches, nothing is ever canceled, and a ring can be closed at any time.
//!
//! Order: sends first, receives after them. A receive whose message is sent in the same batch finds it.
#![allow(unsafe_code, reason = "the queues shared with the kernel, and pointers in their entries")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::{IoUring, opcode, squeue, types};

pub(crate) use super::operation::{Completion, Operation};
use super::recv_slots::{self, RecvSlots, SLOT_LEN};
use super::support::{self, Unavailable};
use crate::ancillary::ReceivedControl;
use crate::ancillary::wire::MAX_CONTROL;
use crate::common::metrics::{Counter, CounterCells};
use crate::common::pending_send::vector;
use crate::sys::{self, RECV_NOW, SEND_NOW, control_len, empty_header, set_control};

/// Entries of the submission queue. The completion queue has twice as many. 256 take 32 KiB of locked memory, 32 take 8.
const ENTRIES: [u32; 2] = [256, 32];

/// `IORING_ENTER_GETEVENTS`.
const GETEVENTS: u32 = 1;

/// How often a ring that is short of memory is entered again before it counts as broken.
const ENTER_RETRIES: u32 = 16;

const SEND: u16 = 0;
const RECV: u16 = 1;
const RECVMSG: u16 = 2;

impl Operation<'_> {
    fn kind(&self) -> u16 {
        match self {
            Self::Send(..) => SEND,
            Self::Recv(_) => RECV,
            Self::RecvMsg(..) => RECVMSG,
        }
    }
}

/// `user_data`: the index of the entry in its batch, its slot, and its kind.
struct Key {
    at: u16,
    slot: u16,
    kind: u16,
}

impl Key {
    fn encode(self) -> u64 {
        u64::from(self.at) | u64::from(self.slot) << 16 | u64::from(self.kind) << 32
    }

    fn decode(key: u64) -> Self {
        Self { at: key as u16, slot: (key >> 16) as u16, kind: (key >> 32) as u16 }
    }
}

pub(crate) struct Ring {
    ring: IoUring,
    /// `None` once they are leaked: the kernel may still write to them.
    slots: Option<RecvSlots>,
    /// By slot. Empty once they are leaked.
    messages: Box<[SlotHeader]>,
}

struct SlotHeader {
    header: libc::msghdr,
    vector: libc::iovec,
}

// SAFETY: the pointers in `messages` lead into the slots, which are mapped, and into the box of `messages`. The ring owns both,
// and they stay in place when it moves. Only the kernel and the holder of `&mut Ring` use them.
unsafe impl Send for Ring {}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("fd", &self.ring.as_raw_fd()).finish_non_exhaustive()
    }
}

impl Ring {
    /// Makes a ring with its memory.
    ///
    /// # Errors
    /// Fails if the kernel refuses a ring or has no memory for it. A refusal that lasts is remembered ([`support`]).
    pub(crate) fn new() -> Result<Self, Unavailable> {
        Self::made(&ENTRIES, &recv_slots::COUNTS).inspect_err(support::refused)
    }

    /// Makes the smallest ring that [`new`](Self::new) accepts, to find out whether there can be one.
    pub(super) fn smallest() -> Result<Self, Unavailable> {
        Self::made(&ENTRIES[1..], &recv_slots::COUNTS[2..])
    }

    /// Makes a ring of the first of `entries` and of `slots` for which there is memory.
    fn made(entries: &[u32], slots: &[usize]) -> Result<Self, Unavailable> {
        // The slots come first. Otherwise an error of mapping the queues could also mean a lack of address space.
        let slots = RecvSlots::new(slots).map_err(|error| Unavailable::AddressSpace {
            errno: error.raw_os_error().unwrap_or(0),
        })?;
        let mut builder = IoUring::builder();
        // One failing entry does not end a batch. In all else it is a plain ring, which any thread may enter: tasks move between
        // workers.
        builder.setup_submit_all();
        let (usual, smaller) = entries.split_first().expect("a size");
        let ring = smaller.iter().fold(builder.build(*usual), |ring, fewer| match ring {
            // The limit on locked memory: a small ring enters more often, and works.
            Err(error) if is_short_of_memory(&error) => builder.build(*fewer),
            ring => ring,
        });
        let ring = ring.map_err(|error| Unavailable::at_setup(&error))?;
        let message = || SlotHeader { header: empty_header(), vector: vector(std::ptr::null(), 0) };
        let messages = (0..slots.count()).map(|_| message()).collect();
        let mut ring = Self { ring, slots: Some(slots), messages };
        ring.try_out().map_err(|error| Unavailable::at_enter(&error))?;
        Ok(ring)
    }

    /// Returns whether this process has made the ring.
    ///
    /// In a forked child it is the parent's, and its queues are shared memory. The child must not run a batch, and can close
    /// its copy at any time.
    pub(crate) fn is_own(&self) -> bool {
        self.slots.as_ref().is_none_or(RecvSlots::are_own)
    }

    /// Runs one entry that does nothing. A filter may allow a ring to be made, and refuse the call that enters it.
    fn try_out(&mut self) -> io::Result<()> {
        // SAFETY: the entry is a NOP, which points to no memory (io_uring_enter(2)).
        let full = unsafe { self.ring.submission().push(&opcode::Nop::new().build()) };
        full.expect("an empty queue");
        let mut last = does_nothing();
        for _ in 0..=ENTER_RETRIES {
            let left = self.ring.submission().len();
            let entered = self.enter(left, 1);
            if self.ring.completion().next().is_some() {
                return Ok(());
            }
            match entered {
                Ok(_) => {}
                Err(error) if is_short_of_memory(&error) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Returns how many receives go through one `io_uring_enter(2)`.
    pub(crate) fn receives_at_once(&self) -> usize {
        self.messages.len()
    }

    /// Runs operations in order, and reports each one once, with its index, before it returns. Sends come before receives.
    ///
    /// # Errors
    /// Fails if `io_uring_enter(2)` does not work any more, for example because of a seccomp filter. The caller drops the ring
    /// then. Operations from the first that was not reported have not been taken.
    pub(crate) fn run<'a>(
        &mut self,
        operations: impl Iterator<Item = Operation<'a>>,
        counters: &CounterCells,
        mut report: impl FnMut(usize, Completion<'_>),
    ) -> Result<(), Unavailable> {
        let mut operations = operations.peekable();
        let mut first = 0;
        while operations.peek().is_some() {
            let (mut pushed, mut slot) = (0, 0);
            let capacity = self.ring.params().sq_entries() as usize;
            let Self { ring, slots: Some(slots), messages } = self else { break };
            let mut queue = ring.submission();
            while pushed < capacity
                && let Some(operation) = operations.next_if(|operation| {
                    matches!(operation, Operation::Send(..)) || slot < messages.len()
                })
            {
                let entry = entry(operation, slots, messages, slot);
                let kind = operation.kind();
                let key = Key { at: pushed as u16, slot: slot as u16, kind }.encode();
                slot += usize::from(kind != SEND);
                // SAFETY: the entry points to slots, `messages` and a pending send. The first two belong to the ring, and the
                // pending send is borrowed for longer than this call. `submit` returns when every entry that the kernel has
                // taken is completed. Otherwise it leaks the first two and reports `Unknown`, for which the caller leaks the send.
                let full = unsafe { queue.push(&entry.user_data(key)) };
                full.expect("no more are pushed than the queue has entries");
                pushed += 1;
            }
            drop(queue);
            counters.add(Counter::Submissions, pushed as u64);
            let done = self.submit(pushed, first, counters, &mut report);
            first += pushed;
            done?;
        }
        Ok(())
    }

    /// Makes the kernel run `pushed` entries, and reports them.
    fn submit(
        &mut self,
        pushed: usize,
        first: usize,
        counters: &CounterCells,
        report: &mut impl FnMut(usize, Completion<'_>),
    ) -> Result<(), Unavailable> {
        let (mut reported, mut patience) = (0, ENTER_RETRIES);
        let mut open = [u64::MAX; 4];
        loop {
            let left = self.ring.submission().len();
            // Each completes within the call that submits it. If one ever does not, this waits for it.
            let missing = if left == 0 { pushed - reported } else { 0 };
            counters.add(Counter::Enters, 1);
            let entered = self.enter(left, missing);
            let reaped = self.reap(first, &mut open, report);
            reported += reaped;
            if reported == pushed {
                return Ok(());
            }
            match entered {
                Ok(taken) if taken > 0 || reaped > 0 => {}
                Ok(_) if patience > 0 => patience -= 1,
                Err(error) if is_short_of_memory(&error) && patience > 0 => patience -= 1,
                failed => {
                    let error = failed.err().unwrap_or_else(does_nothing);
                    let refused = Unavailable::at_enter(&error);
                    support::refused(&refused);
                    let taken = pushed - self.ring.submission().len();
                    for at in (0..pushed).filter(|at| open[at / 64] & (1 << (at % 64)) != 0) {
                        if at < taken {
                            std::mem::forget(self.slots.take());
                            // RECVMSG writes to its header.
                            std::mem::forget(std::mem::take(&mut self.messages));
                            report(first + at, Completion::Unknown);
                        } else {
                            report(first + at, Completion::NotTaken);
                        }
                    }
                    return Err(refused);
                }
            }
        }
    }

    fn enter(&mut self, to_submit: usize, to_wait_for: usize) -> io::Result<usize> {
        loop {
            // SAFETY: no argument is passed, so the kernel reads no memory of it. The `to_submit` entries were pushed by `run`
            // or `try_out`, and published when their SubmissionQueue was dropped.
            let entered = unsafe {
                self.ring.submitter().enter::<libc::sigset_t>(
                    to_submit as u32,
                    to_wait_for as u32,
                    GETEVENTS,
                    None,
                )
            };
            match entered {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn reap(
        &mut self,
        first: usize,
        open: &mut [u64; 4],
        report: &mut impl FnMut(usize, Completion<'_>),
    ) -> usize {
        let Self { ring, slots: Some(slots), messages } = self else { return 0 };
        let mut count = 0;
        for completion in ring.completion() {
            let Key { at, slot, kind } = Key::decode(completion.user_data());
            let (at, slot, result) = (usize::from(at), usize::from(slot), completion.result());
            open[at / 64] &= !(1 << (at % 64));
            #[cfg(test)]
            let result = refusing::answer(result);
            count += 1;
            if result < 0 {
                report(
                    first + at,
                    match kind {
                        SEND => Completion::Sent(Err(io::Error::from_raw_os_error(-result))),
                        _ => Completion::NotReceived(-result),
                    },
                );
                continue;
            }
            let message_len = result as usize;
            if kind == SEND {
                report(first + at, Completion::Sent(Ok(message_len)));
                continue;
            }
            let control =
                (kind == RECVMSG).then(|| control(&messages[slot].header, slots.control(slot)));
            let len = message_len.min(SLOT_LEN);
            // SAFETY: the kernel has completed this receive, and written `len` bytes of the message into this slot: the result of
            // the entry, up to the length that it was given. The next batch is the first to refer to the slot again.
            let bytes = unsafe { std::slice::from_raw_parts(slots.payload(slot), len) };
            report(first + at, Completion::Received { bytes, message_len, control });
            slots.trim(slot, len);
        }
        count
    }
}

fn entry(
    operation: Operation<'_>,
    slots: &RecvSlots,
    messages: &mut [SlotHeader],
    slot: usize,
) -> squeue::Entry {
    match operation {
        Operation::Send(fd, message) => {
            let fd = target(fd);
            match message.pointers() {
                (_, Some(bytes)) => {
                    opcode::Send::new(fd, bytes.iov_base.cast(), bytes.iov_len as u32)
                        .flags(SEND_NOW)
                        .build()
                }
                (header, None) => opcode::SendMsg::new(fd, header).flags(SEND_NOW as u32).build(),
            }
        }
        Operation::Recv(fd) => {
            let fd = target(fd);
            opcode::Recv::new(fd, slots.payload(slot), SLOT_LEN as u32).flags(RECV_NOW).build()
        }
        Operation::RecvMsg(fd, control_len) => {
            let fd = target(fd);
            let (payload, control) = (slots.payload(slot), slots.control(slot));
            let SlotHeader { header, vector: one } = &mut messages[slot];
            *one = vector(payload, SLOT_LEN);
            *header = sys::header(one, 1);
            set_control(header, control, control_len.min(MAX_CONTROL));
            opcode::RecvMsg::new(fd, header).flags(RECV_NOW as u32).build()
        }
    }
}

/// Returns the descriptor of an operation. In unit tests it can be invalid, so that the operation fails and is not run.
fn target(fd: BorrowedFd<'_>) -> types::Fd {
    #[cfg(test)]
    if refusing::is_next_refused() {
        return types::Fd(-1);
    }
    types::Fd(fd.as_raw_fd())
}

/// Returns the control data of a message that has been received with `header`.
fn control(header: &libc::msghdr, start: *const u8) -> ReceivedControl {
    let truncated =
        header.msg_flags & libc::MSG_CTRUNC != 0 && !cfg!(planted = "control_truncation");
    let len = control_len(header).min(MAX_CONTROL);
    // SAFETY: `start` is the slot's control memory, which was zero when it was mapped, and only the kernel has written to
    // it. It has written `len` bytes for this message, which are read this once: `reap` calls this once for a completion.
    unsafe { ReceivedControl::new(std::slice::from_raw_parts(start, len), truncated) }
}

/// Returns the error for a filter that makes a call succeed without running it.
fn does_nothing() -> io::Error {
    io::Error::other("it returns at once and does nothing")
}

/// Returns whether completions have to be reaped, or memory freed, before the kernel takes more entries.
fn is_short_of_memory(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN | libc::ENOMEM))
}

/// Makes a ring refuse operations of this thread, as a filter on operations would.
#[cfg(test)]
pub(crate) mod refusing {
    use std::cell::Cell;

    thread_local! {
        /// One of so many operations is refused. 0: none.
        pub(crate) static EVERY: Cell<u32> = const { Cell::new(0) };
        pub(crate) static ERRNO: Cell<i32> = const { Cell::new(libc::EACCES) };
        static COUNT: Cell<u32> = const { Cell::new(0) };
    }

    pub(super) fn is_next_refused() -> bool {
        COUNT.set(COUNT.get().wrapping_add(1));
        EVERY.get() > 0 && COUNT.get().is_multiple_of(EVERY.get())
    }

    pub(super) fn answer(result: i32) -> i32 {
        if result == -libc::EBADF { -ERRNO.get() } else { result }
    }
}
