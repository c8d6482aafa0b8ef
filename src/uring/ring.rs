//! The only file that names [`IoUring`]: one ring, its eventfd, and the locks that make its two
//! queues safe to share.
//!
//! A plain ring (neither `SINGLE_ISSUER` nor `DEFER_TASKRUN`): any thread may enter it, so a socket
//! can be dropped, and a runtime driven, anywhere. The kernel finishes a parked operation on the
//! thread that submitted it. On a cooperative ring it does so when that thread next enters the kernel
//! (`COOP_TASKRUN`), and says in the shared flags that there is such work (`TASKRUN_FLAG`). On another it
//! interrupts the thread; there is nothing deferred to be seen then, only completions, and the eventfd
//! tells of each.
//!
//! Two locks, never held together: `submission` while entries are written and entered, `completion`
//! while entries are read. No lane's lock is taken under either.
#![allow(unsafe_code, reason = "the queues shared with the kernel")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};

use io_uring::{IoUring, opcode, squeue, types};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd};

/// Entries of the submission queue; the completion queue has twice as many. 256 take 32 KiB of locked
/// memory, 32 take 8.
const ENTRIES: [u32; 2] = [256, 32];

/// `user_data` of requests whose completion says nothing: cancels.
const NOBODY: u64 = u64::MAX;

/// `IORING_ENTER_GETEVENTS`.
const GETEVENTS: u32 = 1;

/// An operation for the kernel. Made by the modules that own what it points to
/// (`payload::InFlight`), which keep that alive and in place until the operation's completion.
pub(super) struct Submission(squeue::Entry);

impl Submission {
    /// # Safety
    /// Everything `entry` points to stays valid for the kernel until the completion with `key` has
    /// been reaped, or the ring's context is gone.
    pub(super) unsafe fn new(entry: squeue::Entry, key: u64) -> Self {
        debug_assert_ne!(key, NOBODY);
        Self(entry.user_data(key))
    }

    /// Cancel the operation with this key.
    pub(super) fn cancel(key: u64) -> Self {
        Self(opcode::AsyncCancel::new(key).build().user_data(NOBODY))
    }

    fn cancel_all() -> Self {
        let any = types::CancelBuilder::any().all();
        Self(opcode::AsyncCancel2::new(any).build().user_data(NOBODY))
    }
}

/// The outcome of an operation. Comes from [`Ring::reap`] only, once for each operation.
#[derive(Debug)]
pub(super) struct Completion {
    key: u64,
    result: i32,
}

impl Completion {
    pub(super) fn key(&self) -> u64 {
        self.key
    }

    /// What the system call would have returned, or a negated error number.
    pub(super) fn result(&self) -> i32 {
        self.result
    }
}

pub(super) struct Ring {
    ring: IoUring,
    eventfd: OwnedFd,
    submission: Mutex<()>,
    completion: Mutex<()>,
}

impl Ring {
    /// A ring whose eventfd is registered, and silent until [`listen`](Self::listen).
    pub(super) fn new(cooperative: bool) -> io::Result<(Self, ContextWatch)> {
        let mut builder = IoUring::builder();
        builder.setup_submit_all();
        if cooperative {
            // The flag exists for deferred work only: EINVAL without.
            builder.setup_coop_taskrun().setup_taskrun_flag();
        }
        let [usual, small] = ENTRIES;
        let ring = match builder.build(usual) {
            // The limit on locked memory: a small ring submits more often, and works.
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => builder.build(small)?,
            ring => ring?,
        };
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        ring.submitter().register_eventfd(eventfd.as_raw_fd())?;
        let (watch, tied) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        // A registered file is released with the context. Not when the ring is closed: a filter may
        // refuse the call by then.
        ring.submitter().register_files(&[tied.as_raw_fd()])?;
        let watch = ContextWatch { watch };
        let ring = Self { ring, eventfd, submission: Mutex::new(()), completion: Mutex::new(()) };
        ring.silence();
        // A filter may refuse this call alone.
        ring.get_events().map_err(|refused| refused.error)?;
        Ok((ring, watch))
    }

    /// Written by the kernel for completions while the ring is listened to.
    pub(super) fn eventfd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }

    /// Hand operations to the kernel, all of them, and run what is deferred.
    ///
    /// `relieve` is called without a lock where the kernel asks for completions to be reaped first.
    ///
    /// # Errors
    /// `io_uring_enter(2)` refused; the operations that `left` then counts have not been taken.
    pub(super) fn submit(
        &self,
        submissions: &[Submission],
        mut relieve: impl FnMut(),
    ) -> Result<(), Refused> {
        let mut rest = submissions;
        loop {
            let (pushed, entered) = self.push_and_enter(rest);
            rest = &rest[pushed..];
            match entered {
                Ok(0) if rest.is_empty() => return Ok(()),
                Ok(_) => {}
                Err(error) if is_busy(&error) => relieve(),
                Err(error) => return Err(Refused { error }),
            }
        }
    }

    /// Write what fits and enter; how many were written, and how many the kernel has left to take.
    fn push_and_enter(&self, submissions: &[Submission]) -> (usize, io::Result<usize>) {
        let _lock = lock(&self.submission);
        let mut pushed = 0;
        let waiting = {
            // SAFETY: the lock is held, so this is the only SubmissionQueue.
            let mut queue = unsafe { self.ring.submission_shared() };
            for submission in submissions {
                // SAFETY: whoever made the Submission promised that what it points to stays valid
                // until its completion.
                if unsafe { queue.push(&submission.0) }.is_err() {
                    break;
                }
                pushed += 1;
            }
            queue.len()
        };
        let entered = self.enter(waiting).map(|taken| waiting.saturating_sub(taken));
        (pushed, entered)
    }

    /// Run deferred work and flush overflown completions. Submits only what the kernel has not taken
    /// from others, who were refused.
    pub(super) fn get_events(&self) -> Result<(), Refused> {
        match self.push_and_enter(&[]).1 {
            Err(error) if !is_busy(&error) => Err(Refused { error }),
            _ => Ok(()),
        }
    }

    fn enter(&self, to_submit: usize) -> io::Result<usize> {
        loop {
            // SAFETY: no argument is passed; `to_submit` entries have been published by the drop of
            // the SubmissionQueue. Nothing is waited for.
            let entered = unsafe {
                self.ring.submitter().enter::<libc::sigset_t>(to_submit as u32, 0, GETEVENTS, None)
            };
            match entered {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => return result,
            }
        }
    }

    /// Ask the kernel to cancel everything in flight. What has settled can be reaped afterwards.
    pub(super) fn cancel_all(&self) -> Result<(), Refused> {
        self.submit(&[Submission::cancel_all()], || {})
    }

    /// Take completions, as many as `into` has room for; how many it took.
    pub(super) fn reap(&self, into: &mut Vec<Completion>, room: usize) -> usize {
        let _lock = lock(&self.completion);
        // SAFETY: the lock is held, so this is the only CompletionQueue.
        let mut queue = unsafe { self.ring.completion_shared() };
        queue.sync();
        let mut taken = 0;
        for entry in queue.by_ref().take(room) {
            taken += 1;
            if entry.user_data() != NOBODY {
                into.push(Completion { key: entry.user_data(), result: entry.result() });
            }
        }
        taken
    }

    /// Whether entering would bring completions that cannot be seen yet, or submit what was left.
    pub(super) fn has_deferred_work(&self) -> bool {
        let _lock = lock(&self.submission);
        // SAFETY: the lock is held, so this is the only SubmissionQueue.
        let queue = unsafe { self.ring.submission_shared() };
        // What is in the queue was left there by somebody who was refused.
        queue.taskrun() || queue.cq_overflow() || !queue.is_empty()
    }

    /// Have the eventfd written for completions, and look once more: whether something is there
    /// already, of which the eventfd may not tell.
    pub(super) fn listen(&self) -> bool {
        {
            let _lock = lock(&self.completion);
            // SAFETY: the lock is held, so this is the only CompletionQueue.
            let mut queue = unsafe { self.ring.completion_shared() };
            queue.enable_eventfd();
            // The kernel publishes work or a completion, then reads the flag; here the flag is
            // written, then both are read. One of the two sides sees the other.
            fence(Ordering::SeqCst);
            queue.sync();
            if !queue.is_empty() {
                return true;
            }
        }
        self.has_deferred_work()
    }

    /// Keep the eventfd silent: somebody is going to reap.
    pub(super) fn silence(&self) {
        let _lock = lock(&self.completion);
        // SAFETY: the lock is held, so this is the only CompletionQueue.
        unsafe { self.ring.completion_shared() }.disable_eventfd();
    }
}

/// Tells when the context of a closed ring is gone: the pipe whose other end was registered with it
/// hangs up.
pub(super) struct ContextWatch {
    watch: OwnedFd,
}

/// Proof that the kernel has forgotten all operations of a ring.
pub(super) struct ContextGone(());

impl ContextWatch {
    pub(super) fn gone(&self) -> Option<ContextGone> {
        let mut fds = [PollFd::new(&self.watch, PollFlags::empty())];
        let polled = rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        (polled.is_ok() && fds[0].revents().contains(PollFlags::HUP)).then_some(ContextGone(()))
    }
}

/// `io_uring_enter(2)` does not work here (any more): a seccomp filter, for example.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) error: io::Error,
}

/// The kernel wants completions reaped, or memory freed, first.
fn is_busy(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN))
}

fn lock(mutex: &Mutex<()>) -> MutexGuard<'_, ()> {
    // The unit inside cannot be left inconsistent.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
