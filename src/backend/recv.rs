//! A receive, from its first poll to its message or its drop. Accepting is the same without attempts.

use std::io::{self, IoSliceMut};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, MutexGuard};
use std::task::{Context, Poll, ready};

use tokio::task::coop;

use super::core::{Core, RecvDirection};
use crate::ancillary::{AncillaryBuffer, AncillaryMessageReader, ReceivedControl};
use crate::buf::owned::{Capacity, PartsMut, Scatter};
use crate::common::completed::{Completed, capacity, scatter};
use crate::common::policy::{self, Conditions, Decision, RecvState};
use crate::common::recv_batch::{RecvBatch, recv_many};
use crate::common::recv_queue::Outcome;
use crate::common::source::Source;
use crate::common::wait_queue::WaiterId;
use crate::epoll::readiness::Direction;
use crate::sys::{self};
use crate::types::message_info::MessageInfo;
use crate::types::recv_meta::RecvMeta;
use crate::util::coop as budget;

/// What one kind of receive does with its message. Nothing here runs user code, so it can be called under the queue's lock.
pub(crate) trait Sink {
    type Output;

    /// Whether it is a stream, which other receives wait for.
    const IS_STREAM: bool = false;

    /// Receives from the kernel, without waiting.
    fn direct(&mut self, source: &mut Source<'_>) -> io::Result<Self::Output>;

    /// Delivers a completed message. `control` owns the descriptors that came with it.
    fn deliver(
        &mut self,
        bytes: &[u8],
        received: RecvMeta,
        control: ReceivedControl,
    ) -> io::Result<Self::Output>;

    /// Returns whether it asks for one message, for which an attempt is enough.
    fn may_batch(&self) -> bool {
        true
    }

    /// Returns the length of what was received directly, and whether descriptors may have come with it.
    fn measure(&self, output: &Self::Output) -> (usize, bool);

    /// Takes from tokio's budget. Quick calls share a unit.
    fn pay(budget: coop::RestoreOnPending) {
        budget::take(budget);
    }
}

impl<S: Sink> Sink for &mut S {
    type Output = S::Output;
    const IS_STREAM: bool = S::IS_STREAM;

    fn direct(&mut self, source: &mut Source<'_>) -> io::Result<S::Output> {
        S::direct(self, source)
    }

    fn deliver(
        &mut self,
        bytes: &[u8],
        received: RecvMeta,
        control: ReceivedControl,
    ) -> io::Result<S::Output> {
        S::deliver(self, bytes, received, control)
    }

    fn may_batch(&self) -> bool {
        S::may_batch(self)
    }

    fn measure(&self, output: &S::Output) -> (usize, bool) {
        S::measure(self, output)
    }
}

/// One lent buffer, no ancillary data.
pub(crate) struct Bytes<'b>(pub(crate) &'b mut [u8]);

impl Sink for Bytes<'_> {
    type Output = usize;

    fn direct(&mut self, source: &mut Source<'_>) -> io::Result<usize> {
        source.recv(self.0)
    }

    fn deliver(&mut self, bytes: &[u8], _: RecvMeta, _: ReceivedControl) -> io::Result<usize> {
        let len = bytes.len().min(self.0.len());
        self.0[..len].copy_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn measure(&self, len: &usize) -> (usize, bool) {
        (*len, false)
    }
}

/// Lent buffers, no ancillary data.
pub(super) struct Vectored<'b, 'v>(pub(super) &'b mut [IoSliceMut<'v>]);

impl Sink for Vectored<'_, '_> {
    type Output = usize;

    fn direct(&mut self, source: &mut Source<'_>) -> io::Result<usize> {
        source.recv_vectored(self.0)
    }

    fn deliver(&mut self, bytes: &[u8], _: RecvMeta, _: ReceivedControl) -> io::Result<usize> {
        Ok(scatter(bytes, self.0))
    }

    fn measure(&self, len: &usize) -> (usize, bool) {
        (*len, false)
    }
}

/// Lent buffers, and capacity for control data.
pub(super) struct Borrowed<'b, 'v, 'c> {
    pub(super) buffers: &'b mut [IoSliceMut<'v>],
    pub(super) control: &'c mut [u8],
}

impl<'c> Sink for Borrowed<'_, '_, 'c> {
    type Output = (MessageInfo, AncillaryMessageReader<'c>);

    fn direct(&mut self, source: &mut Source<'_>) -> io::Result<Self::Output> {
        let (received, reader) = source.recv_message(self.buffers, &mut self.control)?;
        Ok((MessageInfo::new(&received, capacity(self.buffers)), reader))
    }

    fn deliver(
        &mut self,
        bytes: &[u8],
        mut received: RecvMeta,
        control: ReceivedControl,
    ) -> io::Result<Self::Output> {
        let len = scatter(bytes, self.buffers);
        let reader = control.move_into(std::mem::take(&mut self.control));
        received.control_truncated |= reader.is_truncated();
        Ok((MessageInfo::new(&received, len), reader))
    }

    fn measure(&self, (info, reader): &Self::Output) -> (usize, bool) {
        (info.message_len(), reader.count_fds() > 0)
    }
}

/// One buffer that was given away, without capacity for ancillary data.
pub(crate) struct Plain<'c, 'b>(pub(crate) &'c mut Capacity<'b>);

impl Sink for Plain<'_, '_> {
    type Output = MessageInfo;

    fn direct(&mut self, source: &mut Source<'_>) -> io::Result<MessageInfo> {
        let received = source.recv_plain(self.0)?;
        Ok(MessageInfo::new(&received, self.0.len()))
    }

    fn deliver(
        &mut self,
        bytes: &[u8],
        received: RecvMeta,
        control: ReceivedControl,
    ) -> io::Result<MessageInfo> {
        self.0.fill(bytes);
        let len = bytes.len().min(self.0.len());
        Ok(MessageInfo::new(&received.without(control.is_empty()), len))
    }

    fn measure(&self, info: &MessageInfo) -> (usize, bool) {
        (info.message_len(), false)
    }
}

/// Buffers that were given away.
pub(crate) struct Owned<'a, P> {
    pub(super) scatter: &'a mut Scatter<P>,
    pub(super) ancillary: Option<&'a mut AncillaryBuffer>,
}

impl<P: PartsMut> Sink for Owned<'_, P> {
    type Output = MessageInfo;

    fn direct(&mut self, source: &mut Source<'_>) -> io::Result<MessageInfo> {
        let received = source.recv_scattered(self.scatter, self.ancillary.as_deref_mut())?;
        Ok(MessageInfo::new(&received, self.scatter.capacity()))
    }

    fn deliver(
        &mut self,
        bytes: &[u8],
        received: RecvMeta,
        control: ReceivedControl,
    ) -> io::Result<MessageInfo> {
        let len = self.scatter.fill(bytes);
        let Some(ancillary) = &mut self.ancillary else {
            return Ok(MessageInfo::new(&received.without(control.is_empty()), len));
        };
        control.fill(ancillary);
        Ok(MessageInfo::new(&received, len))
    }

    fn measure(&self, info: &MessageInfo) -> (usize, bool) {
        let descriptors =
            self.ancillary.as_ref().is_some_and(|ancillary| !ancillary.fds().is_empty());
        (info.message_len(), descriptors)
    }
}

/// A stream, with its buffers.
pub(super) struct Stream<'b>(pub(super) &'b mut RecvBatch);

impl Sink for Stream<'_> {
    type Output = ();
    const IS_STREAM: bool = true;

    fn direct(&mut self, source: &mut Source<'_>) -> io::Result<()> {
        self.0.receive(source)
    }

    fn deliver(
        &mut self,
        bytes: &[u8],
        received: RecvMeta,
        control: ReceivedControl,
    ) -> io::Result<()> {
        self.0.deliver(bytes, received, control);
        Ok(())
    }

    fn may_batch(&self) -> bool {
        self.0.wants_one()
    }

    fn measure(&self, _: &()) -> (usize, bool) {
        (0, false)
    }
}

/// Lent buffers for a message each.
pub(super) struct Many<'b, 'v> {
    pub(super) buffers: &'b mut [IoSliceMut<'v>],
    pub(super) infos: &'b mut Vec<MessageInfo>,
}

impl Sink for Many<'_, '_> {
    type Output = ();

    fn direct(&mut self, source: &mut Source<'_>) -> io::Result<()> {
        recv_many(source, self.buffers, self.infos)
    }

    fn deliver(
        &mut self,
        bytes: &[u8],
        received: RecvMeta,
        control: ReceivedControl,
    ) -> io::Result<()> {
        let Some(first) = self.buffers.first_mut() else { return Ok(()) };
        let received = received.without(control.is_empty());
        let len = scatter(bytes, std::slice::from_mut(first));
        self.infos.push(MessageInfo::new(&received, len));
        Ok(())
    }

    /// Returns false: `recvmmsg(2)` is a batch already, and reports ancillary data.
    fn may_batch(&self) -> bool {
        false
    }

    fn measure(&self, _: &()) -> (usize, bool) {
        (0, false)
    }
}

/// `accept4(2)`.
pub(crate) struct Accept;

impl Sink for Accept {
    type Output = OwnedFd;

    fn direct(&mut self, source: &mut Source<'_>) -> io::Result<OwnedFd> {
        sys::accept(source.fd())
    }

    fn deliver(&mut self, _: &[u8], _: RecvMeta, _: ReceivedControl) -> io::Result<OwnedFd> {
        Err(io::Error::other("a listener makes no attempts, and has no messages"))
    }

    fn measure(&self, _: &OwnedFd) -> (usize, bool) {
        (0, false)
    }

    /// Takes a unit each, as tokio's listeners do: what was accepted holds a descriptor until its task has run.
    fn pay(budget: coop::RestoreOnPending) {
        budget.made_progress();
    }
}

/// A receive. It joins the queue at its first poll if it has to wait, and leaves it when it is dropped.
pub(crate) struct Receive<'a, S> {
    core: &'a Arc<Core>,
    sink: S,
    id: Option<WaiterId>,
    state: RecvState,
}

// Nothing in it is pinned: a sink is not a future.
impl<S> Unpin for Receive<'_, S> {}

impl<'a, S: Sink> Receive<'a, S> {
    pub(super) fn new(core: &'a Arc<Core>, sink: S) -> Self {
        Self { core, sink, id: None, state: RecvState::new() }
    }
}

impl<S: Sink> Future for Receive<'_, S> {
    type Output = io::Result<S::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<S::Output>> {
        let coop = ready!(coop::poll_proceed(cx));
        policy::note_poll();
        let result = ready!(self.poll_once(cx));
        S::pay(coop);
        Poll::Ready(result)
    }
}

impl<S: Sink> Receive<'_, S> {
    fn poll_once(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<S::Output>> {
        let core = self.core;
        if let Err(gone) = core.runtime.check() {
            self.leave();
            return Poll::Ready(Err(gone));
        }
        loop {
            let mut recv = core.lock_recv();
            if recv.queue.completed().is_some() {
                return Poll::Ready(claim(core, recv, &mut self.id, &mut self.sink));
            }
            // An attempt is in a batch just now, or the receive is polled without having been woken.
            if recv.queue.is_submitted() || self.id.is_some() && recv.queue.is_parked() {
                return self.wait(recv, cx);
            }
            let worker = if self.sink.may_batch() { core.batching_worker() } else { None };
            let conditions = Conditions {
                multi_thread: core.runtime.is_multi_thread(),
                batched: worker.is_some(),
                alone: !recv.queue.has_other_waiters(self.id),
                busy_until: core.runtime.busy_until(),
            };
            let mut decision = if recv.queue.take_direct_next() {
                Decision::Call
            } else {
                recv.policy.polled(&mut self.state, &conditions)
            };
            if decision == Decision::Call {
                self.state.asking();
                match self.sink.direct(&mut core.source(&mut recv.marks)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        recv.queue.found_nothing();
                        decision = recv.policy.found_nothing(&mut self.state, &conditions);
                    }
                    result => return Poll::Ready(self.found(recv, &conditions, result)),
                }
            }
            match decision {
                Decision::Call | Decision::Spin => {
                    drop(recv);
                    std::hint::spin_loop();
                }
                Decision::Yield | Decision::YieldToEvents => {
                    let replaced = recv.queue.retry(&mut self.id);
                    drop(recv);
                    drop(replaced);
                    self.state.yielding();
                    policy::yield_now(cx, decision);
                    return Poll::Pending;
                }
                Decision::Queue => {
                    let list = recv.queue.queue_attempt();
                    if list {
                        recv.attempts_left = policy::ATTEMPTS;
                    }
                    let pending = self.wait(recv, cx);
                    if list && let Some(worker) = worker {
                        core.list_receive(worker);
                    }
                    return pending;
                }
                Decision::Park => return self.park(recv, &conditions, cx),
            }
        }
    }

    fn park(
        &mut self,
        mut recv: MutexGuard<'_, RecvDirection>,
        conditions: &Conditions,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<S::Output>> {
        let core = self.core;
        if !recv.queue.is_parked() {
            match core
                .park(Direction::Read, || self.sink.direct(&mut core.source(&mut recv.marks)))
                .transpose()
            {
                None => recv.queue.park(),
                Some(result) => return Poll::Ready(self.found(recv, conditions, result)),
            }
        }
        self.state.yielding();
        self.wait(recv, cx)
    }

    fn wait(
        &mut self,
        mut recv: MutexGuard<'_, RecvDirection>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<S::Output>> {
        let replaced = recv.queue.wait(&mut self.id, cx.waker());
        drop(recv);
        drop(replaced);
        // What waited when the runtime ended has been woken. This receive may have come after that.
        if let Err(gone) = self.core.runtime.check() {
            self.leave();
            return Poll::Ready(Err(gone));
        }
        Poll::Pending
    }

    /// Completes the receive with the message or error of a direct call.
    fn found(
        &mut self,
        mut recv: MutexGuard<'_, RecvDirection>,
        conditions: &Conditions,
        result: io::Result<S::Output>,
    ) -> io::Result<S::Output> {
        recv.policy.found(&self.state, conditions);
        if let Ok(output) = &result {
            let (len, has_descriptors) = self.sink.measure(output);
            recv.policy.note_message(len, has_descriptors);
        }
        let wakes = recv.queue.served(&mut self.id);
        drop(recv);
        self.core.called();
        self.core.apply(wakes);
        result
    }

    fn leave(&mut self) {
        let wakes = self.core.lock_recv().queue.leave(&mut self.id, self.state.has_asked());
        self.core.apply(wakes);
    }
}

impl<S> Drop for Receive<'_, S> {
    fn drop(&mut self) {
        if self.id.is_some() {
            let wakes = self.core.lock_recv().queue.leave(&mut self.id, self.state.has_asked());
            self.core.apply(wakes);
        }
    }
}

/// Claims the completed message or error.
fn claim<S: Sink>(
    core: &Arc<Core>,
    mut recv: MutexGuard<'_, RecvDirection>,
    id: &mut Option<WaiterId>,
    sink: &mut S,
) -> io::Result<S::Output> {
    let outcome = recv.queue.take_completed();
    let wakes = recv.queue.served(id);
    match outcome {
        Some(Ok(mut message)) if message.control.is_empty() => {
            let control = std::mem::take(&mut message.control);
            let output = sink.deliver(&message.bytes, message.received, control);
            if message.bytes.capacity() <= policy::COPY_MAX {
                recv.spare = Some(message);
            }
            drop(recv);
            core.did_without();
            core.apply(wakes);
            output
        }
        outcome => {
            drop(recv);
            core.did_without();
            core.apply(wakes);
            // Closing descriptors that the receive does not take can be slow, so it is not done under the lock.
            let Completed { bytes, control, received } = *from_errno(outcome)?;
            sink.deliver(&bytes, received, control)
        }
    }
}

fn from_errno(outcome: Option<Outcome<Box<Completed>>>) -> io::Result<Box<Completed>> {
    match outcome {
        Some(outcome) => outcome.map_err(io::Error::from_raw_os_error),
        None => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl Core {
    /// Receives without waiting.
    ///
    /// # Errors
    /// Returns `WouldBlock` if there is nothing, or if an attempt is in a batch just now.
    pub(super) fn try_receive<S: Sink>(self: &Arc<Self>, sink: &mut S) -> io::Result<S::Output> {
        self.runtime.check()?;
        let mut recv = self.lock_recv();
        if recv.queue.completed().is_some() {
            return claim(self, recv, &mut None, sink);
        }
        if recv.queue.is_submitted() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        match sink.direct(&mut self.source(&mut recv.marks)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                recv.queue.found_nothing();
                if recv.queue.needs_parking() {
                    match self.park_until_readable() {
                        Ok(true) => recv.queue.park(),
                        // The waiters ask by themselves.
                        Ok(false) | Err(_) => {
                            let wakes = recv.queue.hand_over();
                            drop(recv);
                            self.apply(wakes);
                        }
                    }
                }
                Err(error)
            }
            result => {
                if let Ok(output) = &result {
                    let (len, has_descriptors) = sink.measure(output);
                    recv.policy.note_message(len, has_descriptors);
                }
                let wakes = recv.queue.served(&mut None);
                drop(recv);
                self.called();
                self.apply(wakes);
                result
            }
        }
    }

    /// Receives, or registers the task to be woken when there may be a message. Only the waker is left waiting.
    pub(super) fn poll_receive<S: Sink>(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        sink: &mut S,
    ) -> Poll<io::Result<S::Output>> {
        let coop = ready!(coop::poll_proceed(cx));
        loop {
            match self.try_receive(sink) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => {
                    S::pay(coop);
                    return Poll::Ready(result);
                }
            }
            // Between the two the message may have come: it is asked for again once the waker is registered.
            if ready!(self.poll_readable_waker(cx, S::IS_STREAM))? {
                return Poll::Pending;
            }
        }
    }

    /// Registers the waker of a `poll_*` call. Returns `Ready(false)` if something has come since the kernel was asked.
    pub(super) fn poll_readable_waker(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        is_stream: bool,
    ) -> Poll<io::Result<bool>> {
        let mut recv = self.lock_recv();
        if recv.queue.completed().is_some() {
            return Poll::Ready(Ok(false));
        }
        if !recv.queue.is_submitted() && !recv.queue.is_parked() {
            if !self.park_until_readable()? {
                return Poll::Ready(Ok(false));
            }
            recv.queue.park();
        }
        let observers = &mut recv.queue.observers;
        let replaced =
            if is_stream { observers.park_stream(cx.waker()) } else { observers.park(cx.waker()) };
        drop(recv);
        drop(replaced);
        self.runtime.check()?;
        Poll::Ready(Ok(true))
    }
}
