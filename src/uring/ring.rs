//! The only file that names [`IoUring`]: one ring, and one batch at a time through it.
//!
//! Every operation of a batch has `MSG_DONTWAIT`, so the kernel completes it within `io_uring_enter(2)`: it arms nothing
//! and hands nothing to its worker threads (without `LINK`, `DRAIN` and `ASYNC`; `tests/kernel_facts.rs` would notice a
//! change). [`Ring::run`] returns when each operation has been reported. So the kernel has no pointer of ours between two
//! batches, nothing is ever cancelled, and a ring can be closed at any time.
//!
//! Order: sends first, receives after them. A receive whose message is sent in the same batch finds it.
#![allow(unsafe_code, reason = "the queues shared with the kernel, and pointers in their entries")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::{IoUring, opcode, squeue, types};

use super::recv_slots::{self, RecvSlots, SLOT_LEN};
use super::support::{self, Unavailable};
use crate::ancillary::ReceivedControl;
use crate::ancillary::wire::MAX_CONTROL;
use crate::common::metrics::{Counter, CounterCells};
use crate::common::pending_send::{PendingSend, vector};
use crate::sys::{RECV_NOW, SEND_NOW, empty_header};

/// Entries of the submission queue; the completion queue has twice as many. 256 take 32 KiB of locked memory, 32
/// take 8.
const ENTRIES: [u32; 2] = [256, 32];

/// `IORING_ENTER_GETEVENTS`.
const GETEVENTS: u32 = 1;

/// How often a ring that is short of memory is asked again before it counts as broken.
const ENTER_RETRIES: u32 = 16;

/// One operation of a batch.
#[derive(Clone, Copy)]
pub(crate) enum Operation<'a> {
    /// `SEND`, or `SENDMSG` where that is needed.
    Send(BorrowedFd<'a>, &'a PendingSend),
    /// `RECV`, which discards ancillary data.
    Recv(BorrowedFd<'a>),
    /// `RECVMSG`, with capacity for all control data that can come with a message.
    RecvMsg(BorrowedFd<'a>),
}

const SEND: u16 = 0;
const RECV: u16 = 1;
const RECVMSG: u16 = 2;

impl Operation<'_> {
    fn kind(&self) -> u16 {
        match self {
            Self::Send(..) => SEND,
            Self::Recv(_) => RECV,
            Self::RecvMsg(_) => RECVMSG,
        }
    }
}

/// `user_data`: which entry of the batch, its slot, and what it is.
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

/// The outcome of one operation.
pub(crate) enum Completion<'a> {
    Sent(io::Result<usize>),
    /// The whole message, or as much as a slot holds. `control` owns the descriptors that came with it; `None` if the
    /// kernel was not asked for any.
    Received {
        bytes: &'a [u8],
        message_len: usize,
        control: Option<ReceivedControl>,
    },
    NotReceived(i32),
    /// The kernel has not taken it: nothing was sent or received.
    NotTaken,
    /// The kernel took it and does not say what became of it. What it points to must never be freed.
    Unknown,
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

// SAFETY: the pointers lead into the slots and into `messages`, which move with the ring.
unsafe impl Send for Ring {}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("fd", &self.ring.as_raw_fd()).finish_non_exhaustive()
    }
}

impl Ring {
    /// # Errors
    /// The kernel refuses one, or has no memory for it. A refusal that lasts is remembered ([`support`]).
    pub(crate) fn new() -> Result<Self, Unavailable> {
        Self::made(&ENTRIES, &recv_slots::COUNTS).inspect_err(support::refused)
    }

    /// The least that [`new`](Self::new) would be content with, to find out whether there can be one.
    pub(super) fn smallest() -> Result<Self, Unavailable> {
        Self::made(&ENTRIES[1..], &recv_slots::COUNTS[2..])
    }

    /// The first of `entries` and of `slots` for which there is memory.
    fn made(entries: &[u32], slots: &[usize]) -> Result<Self, Unavailable> {
        // First: else an error of mapping the queues could be one of address space, too.
        let slots = RecvSlots::new(slots).map_err(|error| Unavailable::AddressSpace {
            errno: error.raw_os_error().unwrap_or(0),
        })?;
        let mut builder = IoUring::builder();
        // One failing entry does not end a batch. A plain ring otherwise: any thread may enter it, since tasks move
        // between workers.
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

    /// Whether this process has made it. In a forked child it is the parent's, and its queues are shared memory: the child
    /// must not run a batch, and can close its copy at any time.
    pub(crate) fn is_own(&self) -> bool {
        self.slots.as_ref().is_none_or(RecvSlots::are_own)
    }

    /// Has the kernel run an entry. A filter may allow a ring to be made, and refuse the call that enters it.
    fn try_out(&mut self) -> io::Result<()> {
        // SAFETY: this entry points to nothing.
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

    /// How many receives go through one `io_uring_enter(2)`.
    pub(crate) fn receives_at_once(&self) -> usize {
        self.messages.len()
    }

    /// Runs operations in order and reports each one once, with its index, before it returns. Sends come before
    /// receives.
    ///
    /// # Errors
    /// `io_uring_enter(2)` does not work here any more: a seccomp filter, for example. Drop the ring. Operations from the
    /// first that was not reported on have not been taken.
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
                // SAFETY: what the entry points to stays until its completion: slots and `messages` belong to the
                // ring, a pending send is borrowed for longer than this call. `submit` returns when every entry that
                // the kernel has taken is completed; else the memory is leaked, there and by the caller.
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

    /// Has the kernel run `pushed` entries, and reports them.
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
            // Each completes within the call that submits it. If one ever did not, wait for it.
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
            // SAFETY: no argument is passed. `to_submit` entries were published when the SubmissionQueue was dropped.
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
            // SAFETY: the kernel has written so many bytes of the message into this slot (its completion, and the length
            // it was given), which nothing else refers to until the next batch.
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
        Operation::RecvMsg(fd) => {
            let fd = target(fd);
            let (payload, control) = (slots.payload(slot), slots.control(slot));
            let SlotHeader { header, vector: one } = &mut messages[slot];
            *one = vector(payload, SLOT_LEN);
            *header = empty_header();
            (header.msg_iov, header.msg_iovlen) = (one, 1);
            (header.msg_control, header.msg_controllen) = (control.cast(), MAX_CONTROL);
            opcode::RecvMsg::new(fd, header).flags(RECV_NOW as u32).build()
        }
    }
}

/// The descriptor of an operation. In unit tests it can be none, so that the operation fails and is not run.
fn target(fd: BorrowedFd<'_>) -> types::Fd {
    #[cfg(test)]
    if refusing::is_next_refused() {
        return types::Fd(-1);
    }
    types::Fd(fd.as_raw_fd())
}

/// What `header` says about the control data of a message that has been received.
fn control(header: &libc::msghdr, start: *const u8) -> ReceivedControl {
    let truncated =
        header.msg_flags & libc::MSG_CTRUNC != 0 && !cfg!(planted = "control_truncation");
    let len = header.msg_controllen.min(MAX_CONTROL);
    // SAFETY: the memory is a slot's, which was zero when it was mapped and has been written by the kernel only:
    // `len` bytes of it for this message, which are read this once.
    unsafe { ReceivedControl::new(std::slice::from_raw_parts(start, len), truncated) }
}

/// A filter can make a call succeed without making it.
fn does_nothing() -> io::Error {
    io::Error::other("it returns at once and does nothing")
}

/// The kernel wants completions reaped, or memory freed, first.
fn is_short_of_memory(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN | libc::ENOMEM))
}

/// Operations of this thread that a ring refuses, as a filter on operations would.
#[cfg(test)]
pub(crate) mod refusing {
    use std::cell::Cell;

    thread_local! {
        /// Every so many operations one is refused. 0: none.
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
