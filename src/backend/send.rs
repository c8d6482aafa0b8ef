//! A send, from its first poll to its result or its drop.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::task::coop;

use super::core::{Core, Worker};
use super::worker::Work;
use crate::ancillary::{AncillaryBuffer, wire};
use crate::buf::owned::Parts;
use crate::common::metrics::Carried;
use crate::common::pending_send::PendingSend;
use crate::common::policy::COPY_MAX;
use crate::common::send_queue::Withdrawn;
use crate::sys;
use crate::util::coop as budget;

/// Why a send has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitReason {
    /// It is left to the next batch, or others are ahead of it.
    Queued,
    /// The peer's queue is full.
    Full,
}

/// A spare payload for a send that has to wait.
pub(crate) type Spare = Option<Box<PendingSend>>;

/// A message that the caller lends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LentMessage<'a> {
    Bytes(&'a [u8]),
    Message(&'a [IoSlice<'a>], &'a [u8]),
}

impl LentMessage<'_> {
    pub(super) fn send_now(&self, fd: BorrowedFd<'_>) -> io::Result<Carried> {
        let (sent, control) = match *self {
            Self::Bytes(bytes) => (sys::send(fd, bytes), &[][..]),
            Self::Message([one], []) => (sys::send(fd, one), &[][..]),
            Self::Message(message, control) => (sys::send_message(fd, message, control), control),
        };
        Ok(Carried::message(sent?, wire::count_fds(control)))
    }

    /// Returns whether to copy it for a batch. Descriptors would have to be duplicated, which costs more than it saves.
    fn may_batch(&self) -> bool {
        match self {
            Self::Bytes(bytes) => bytes.len() <= COPY_MAX,
            Self::Message(message, control) => {
                control.is_empty()
                    && message.iter().map(|part| part.len()).sum::<usize>() <= COPY_MAX
            }
        }
    }

    fn copy(&self, spare: Spare) -> io::Result<Box<PendingSend>> {
        match *self {
            Self::Bytes(bytes) => Ok(PendingSend::copy_bytes(bytes, spare)),
            Self::Message(message, control) => PendingSend::copy(message, control, spare),
        }
    }
}

/// A send of a message that the caller lends.
pub(crate) struct LentSend<'a> {
    core: &'a Arc<Core>,
    message: LentMessage<'a>,
    state: LentState<'a>,
}

enum LentState<'a> {
    New,
    /// Sent without budget, since the first poll decides the order. The task yields before it gets the result.
    Done(Option<io::Result<usize>>),
    Waiting(WaitingSend<'a>),
}

impl<'a> LentSend<'a> {
    pub(super) fn new(core: &'a Arc<Core>, message: LentMessage<'a>) -> Self {
        Self { core, message, state: LentState::New }
    }

    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let core = self.core;
        let coop = coop::poll_proceed(cx);
        core.runtime.check()?;
        let mut reason = WaitReason::Queued;
        if core.send.is_idle() {
            if self.message.may_batch()
                && let Some(worker) = core.batching_worker()
                && let Some(waiting) = self.queue(worker, cx)
            {
                self.state = LentState::Waiting(waiting);
                return Poll::Pending;
            }
            match core.send_now(|fd| self.message.send_now(fd)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    reason = WaitReason::Full
                }
                sent => {
                    let result = sent.map(|sent| sent.bytes);
                    core.called();
                    match coop {
                        Poll::Ready(coop) => {
                            budget::take(coop);
                            return Poll::Ready(result);
                        }
                        Poll::Pending => self.state = LentState::Done(Some(result)),
                    }
                    return Poll::Pending;
                }
            }
        }
        let payload = self.message.copy(core.send.spare())?;
        let mut waiting = WaitingSend::new(core, payload, reason);
        let polled = waiting.poll(cx);
        self.state = LentState::Waiting(waiting);
        polled.map(|(sent, _)| sent)
    }

    /// Leaves the message to the next batch, unless another send has come first, or this one must be sent at once.
    fn queue(&self, worker: &Worker, cx: &Context<'_>) -> Option<WaitingSend<'a>> {
        let core = self.core;
        let mut send = core.send.lock();
        if send.queue.take_direct_next() || !send.queue.is_idle() {
            return None;
        }
        let spare = send.spares.take();
        let payload = self.message.copy(spare).ok()?;
        let slot = send.queue.enqueue(cx.waker(), payload);
        let list = send.queue.list();
        drop(send);
        if list {
            core.list(worker, Work::Send);
        }
        Some(WaitingSend { core, payload: None, reason: WaitReason::Queued, slot: Some(slot) })
    }
}

impl Future for LentSend<'_> {
    type Output = io::Result<usize>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match &mut self.state {
            LentState::New => {
                let polled = self.poll_first(cx);
                if polled.is_ready() {
                    // If it is polled again, it must not send again.
                    self.state = LentState::Done(None);
                }
                polled
            }
            LentState::Waiting(waiting) => waiting.poll(cx).map(|(sent, _)| sent),
            LentState::Done(result) => {
                budget::take(ready!(coop::poll_proceed(cx)));
                Poll::Ready(result.take().expect("not polled after completion"))
            }
        }
    }
}

/// Sends what the caller gives away, if that is possible without waiting.
pub(super) fn send_given_now(
    fd: BorrowedFd<'_>,
    message: &[IoSlice<'_>],
    ancillary: &AncillaryBuffer,
) -> io::Result<Carried> {
    let sent = sys::send_with_ancillary(fd, message, ancillary)?;
    Ok(Carried::message(sent, ancillary.fds().len()))
}

impl Core {
    /// Sends what the caller gives away.
    pub(super) async fn send_given<P: Parts>(
        self: &Arc<Self>,
        parts: P,
        ancillary: AncillaryBuffer,
    ) -> (io::Result<usize>, P, AncillaryBuffer) {
        let sent = {
            let message = parts.slices();
            if ancillary.is_empty()
                && message.iter().map(|part| part.len()).sum::<usize>() <= COPY_MAX
            {
                // A copy is cheaper than giving the buffer away and back, and needs no allocation.
                Ok(LentSend::new(self, LentMessage::Message(&message, &[])).await)
            } else {
                let call = |fd: BorrowedFd<'_>| send_given_now(fd, &message, &ancillary);
                let sent = self.send_directly(call).await;
                sent.map(|sent| sent.map(|sent| sent.bytes))
            }
        };
        match sent {
            Ok(sent) => (sent, parts, ancillary),
            // In a box: otherwise every send would reserve memory for this future.
            Err(waits) => Box::pin(self.wait_given(parts, ancillary, waits)).await,
        }
    }

    /// Joins the queue with what the caller gives away.
    pub(super) async fn wait_given<P: Parts>(
        self: &Arc<Self>,
        parts: P,
        ancillary: AncillaryBuffer,
        (reason, spare): (WaitReason, Spare),
    ) -> (io::Result<usize>, P, AncillaryBuffer) {
        let payload = match PendingSend::given(parts, ancillary, spare) {
            Ok(payload) => payload,
            Err((error, parts, ancillary)) => return (Err(error), parts, ancillary),
        };
        let (sent, payload) = self.wait_for(payload, reason).await;
        let payload = payload.expect("a payload that was given comes back");
        let (parts, ancillary, spare) = payload.take();
        if let Some(spare) = spare {
            self.send.lock().spares.keep(spare);
        }
        (sent, parts, ancillary)
    }

    /// Makes a system call, and counts what it sends. All sends that no driver makes come through here.
    fn send_now(
        &self,
        call: impl FnOnce(BorrowedFd<'_>) -> io::Result<Carried>,
    ) -> io::Result<Carried> {
        let sent = call(self.fd())?;
        self.sent.add(sent);
        Ok(sent)
    }

    /// Makes one system call, if no send is ahead. Otherwise returns the reason to wait, with a spare payload.
    pub(super) async fn send_directly(
        self: &Arc<Self>,
        mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<Carried>,
    ) -> Result<io::Result<Carried>, (WaitReason, Spare)> {
        let mut done = None;
        std::future::poll_fn(|cx| {
            let coop = coop::poll_proceed(cx);
            if done.is_none() {
                if let Err(gone) = self.runtime.check() {
                    return Poll::Ready(Ok(Err(gone)));
                }
                if !self.send.is_idle() {
                    return Poll::Ready(Err((WaitReason::Queued, self.send.spare())));
                }
                match self.send_now(&mut call) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        return Poll::Ready(Err((WaitReason::Full, self.send.spare())));
                    }
                    // Also without budget, since the first poll decides the order. Then the task yields before it gets the
                    // result.
                    result => done = Some(result),
                }
                self.called();
            }
            budget::take(ready!(coop));
            Poll::Ready(Ok(done.take().expect("called, not polled after completion")))
        })
        .await
    }

    /// Joins the queue. The future awaits nothing between the poll that found the reason and the first poll of this one, so its
    /// place in the queue is that of the first poll.
    async fn wait_for(
        self: &Arc<Self>,
        payload: Box<PendingSend>,
        reason: WaitReason,
    ) -> (io::Result<usize>, Option<Box<PendingSend>>) {
        let mut waiting = WaitingSend::new(self, payload, reason);
        std::future::poll_fn(|cx| waiting.poll(cx)).await
    }

    pub(super) fn try_send_with(
        self: &Arc<Self>,
        call: impl FnOnce(BorrowedFd<'_>) -> io::Result<Carried>,
    ) -> io::Result<usize> {
        self.runtime.check()?;
        if !self.send.is_idle() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let sent = self.send_now(call)?;
        self.called();
        Ok(sent.bytes)
    }

    /// Sends, or registers the task to be woken when the peer's queue may have capacity. Only the waker is left waiting.
    pub(super) fn poll_send_with(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<Carried>,
    ) -> Poll<io::Result<usize>> {
        let coop = ready!(coop::poll_proceed(cx));
        loop {
            match self.try_send_with(&mut call) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => {
                    budget::take(coop);
                    return Poll::Ready(result);
                }
            }
            if ready!(self.poll_writable_waker(cx))? {
                return Poll::Pending;
            }
        }
    }

    /// Registers the waker of a `poll_*` call. Returns `Ready(false)` if the peer's queue may have capacity by now.
    pub(super) fn poll_writable_waker(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<bool>> {
        // The waker first: what happens after that wakes it.
        let mut send = self.send.lock();
        let replaced = send.queue.observers.park(cx.waker());
        let is_idle = send.queue.is_idle();
        drop(send);
        drop(replaced);
        self.runtime.check()?;
        // While sends wait, a driver makes progress with them, and wakes the observer once they are gone.
        if is_idle && !self.park_until_writable()? {
            return Poll::Ready(Ok(false));
        }
        Poll::Ready(Ok(true))
    }
}

/// A send in the queue. It leaves the queue when it is dropped.
#[derive(Debug)]
pub(crate) struct WaitingSend<'a> {
    core: &'a Arc<Core>,
    /// The payload until the first poll.
    payload: Option<Box<PendingSend>>,
    reason: WaitReason,
    /// The slot from the first poll on, until it leaves the queue.
    slot: Option<usize>,
}

impl<'a> WaitingSend<'a> {
    pub(super) fn new(core: &'a Arc<Core>, payload: Box<PendingSend>, reason: WaitReason) -> Self {
        Self { core, payload: Some(payload), reason, slot: None }
    }

    /// Returns whether the message has been sent, as the next poll will report.
    pub(crate) fn has_gone_out(&self) -> bool {
        let Some(slot) = self.slot else { return false };
        loop {
            if let Some(gone_out) = self.core.send.lock().queue.has_gone_out(slot) {
                return gone_out;
            }
            // In a driver's pass on another thread, for some microseconds.
            std::thread::yield_now();
        }
    }

    /// Withdraws the send. Returns whether the message has been sent. If not, it never will be.
    pub(crate) fn withdraw(mut self) -> bool {
        let Some(slot) = self.slot else { return false };
        loop {
            let withdrawn = self.core.send.lock().queue.withdraw(slot);
            match withdrawn {
                // As in `has_gone_out`.
                Withdrawn::Taken => std::thread::yield_now(),
                Withdrawn::Done(result, payload) => {
                    self.slot = None;
                    drop(payload);
                    return result.is_ok();
                }
                Withdrawn::Unsent(effects) => {
                    self.slot = None;
                    self.core.apply_send(effects);
                    return false;
                }
            }
        }
    }

    /// Returns the result and, if it was given, the payload.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<(io::Result<usize>, Option<Box<PendingSend>>)> {
        if let Some(payload) = self.payload.take() {
            return self.poll_first(cx, payload);
        }
        let core = self.core;
        let slot = self.slot.expect("not polled after completion");
        let coop = ready!(coop::poll_proceed(cx));
        let polled = core.send.lock().queue.poll(slot, cx.waker());
        match polled {
            Ok((result, payload)) => {
                budget::take(coop);
                self.slot = None;
                Poll::Ready((result, payload))
            }
            Err(replaced) => {
                drop(replaced);
                self.pending_unless_gone(cx)
            }
        }
    }

    fn poll_first(
        &mut self,
        cx: &mut Context<'_>,
        payload: Box<PendingSend>,
    ) -> Poll<(io::Result<usize>, Option<Box<PendingSend>>)> {
        let core = self.core;
        let mut send = core.send.lock();
        // The driver continues with sends that come while it has one. It would not know of this one.
        let is_first = send.queue.is_idle();
        self.slot = Some(send.queue.enqueue(cx.waker(), payload));
        drop(send);
        if is_first {
            let parked = match self.reason {
                WaitReason::Full => core.park_until_writable().unwrap_or(false),
                WaitReason::Queued => false,
            };
            if !parked {
                // Its driver also reports that no readiness will come.
                core.list_send(core.runtime.some_worker());
            }
        }
        self.pending_unless_gone(cx)
    }

    fn pending_unless_gone(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<(io::Result<usize>, Option<Box<PendingSend>>)> {
        match self.core.runtime.check() {
            Ok(()) => Poll::Pending,
            Err(gone) => self.leave_with_error(cx, gone),
        }
    }

    /// Leaves the queue with an error, since the runtime is gone and no driver sends it any more.
    fn leave_with_error(
        &mut self,
        cx: &mut Context<'_>,
        gone: io::Error,
    ) -> Poll<(io::Result<usize>, Option<Box<PendingSend>>)> {
        let (core, slot) = (self.core, self.slot.expect("it waits"));
        let withdrawn = core.send.lock().queue.withdraw(slot);
        let completed = match withdrawn {
            Withdrawn::Done(result, payload) => (result, payload),
            Withdrawn::Taken => {
                // It is in the last pass of a driver, on another thread.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Withdrawn::Unsent(mut effects) => {
                let payload = effects.release.take();
                core.apply_send(effects);
                (Err(gone), payload)
            }
        };
        self.slot = None;
        Poll::Ready(completed)
    }
}

impl Drop for WaitingSend<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            let mut effects = self.core.send.lock().queue.cancel(slot);
            let payload = effects.release.take();
            self.core.apply_send(effects);
            // Last, since destructors of the caller's buffers run here.
            drop(payload);
        }
    }
}
