//! Whether an operation calls the kernel, is queued for a batch, retries, spins or parks. It is decided only here, for both
//! backends. Pure: no system call, no lock.
//!
//! There are two questions:
//! - Does a *worker* have load for batches ([`WorkerLoad`])? That depends on its operations for each turn of its run queue,
//!   and on what a system call costs here ([`Costs`]). Whether batches are faster then is tried ([`super::trial`]).
//! - What does a *receive* do that finds nothing ([`RecvPolicy`])? Parking is the most expensive: an event, a wake-up and
//!   often a call that finds nothing. A message is often there once the ready tasks have run, since one of them sends it.
//!   So a receive yields and calls again, as long as that has paid.
//!
//! docs/design-notes/ has a measurement for every constant.

use std::cell::Cell;
use std::num::NonZeroU64;
use std::sync::OnceLock;
use std::task::Context;
use std::time::Instant;

/// How often a receive yields and calls again before it parks.
#[derive(Debug, Clone, Copy)]
struct Retries {
    count: u8,
    /// The most receives between two that retry without success.
    pause: u16,
}

/// On a current_thread runtime a retry costs a system call. The answer of another thread comes within a few of them, and
/// waking this thread takes ten times as long. Two threads that answer each other find this out only if both retry at the
/// same time. So the pause is short.
const RETRIES_ONE_THREAD: Retries = Retries { count: 20, pause: 3 };

/// On a multi_thread runtime yielding without success makes it wake another worker, which costs as much as ten receives.
const RETRIES_WORKERS: Retries = Retries { count: 5, pause: 4095 };

/// With so many retries left, the I/O driver runs, too: the task that answers may itself be parked. With fewer retries, two
/// parked tasks never find out that they need not park.
const AFTER_EVENTS: u8 = 3;

/// More polls than one other pair makes while a receive is parked.
const MANY_POLLS: u32 = 6;

/// The most receives between two whose first call finds nothing, at one system call each.
const FIRST_PAUSE: u16 = 255;

/// From such a pause on, a retry is expected to find nothing. It begins behind the I/O events, so there are only as many
/// yields as [`AFTER_EVENTS`]: on a multi_thread runtime each wakes another worker (tests/tokio_facts.rs).
const RARE_PAUSE: u16 = 64;

/// How many batches an attempt goes through before its socket parks.
pub(crate) const ATTEMPTS: u8 = 8;

/// Messages up to this size in bytes are copied into and out of a batch. A socket that has just carried a larger one calls
/// directly.
pub(crate) const COPY_MAX: usize = 4096;

/// What a receive does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Ask the kernel.
    Call,
    /// Leave it to the next batch.
    Queue,
    /// Let ready tasks run, then come back.
    Yield,
    /// Let ready tasks and the I/O driver run, then come back.
    YieldToEvents,
    /// Ask again at once.
    Spin,
    /// Wait for readiness.
    Park,
}

/// What a decision depends on apart from its history.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conditions {
    pub(crate) multi_thread: bool,
    /// The operation may be queued, since its worker batches.
    pub(crate) batched: bool,
    /// No other receive of the socket waits to be woken.
    pub(crate) alone: bool,
    /// `busy_poll`.
    pub(crate) busy_until: Option<Instant>,
}

impl Conditions {
    fn retries(&self) -> Retries {
        if self.multi_thread { RETRIES_WORKERS } else { RETRIES_ONE_THREAD }
    }
}

/// The history of one socket's receives.
#[derive(Debug, Default)]
pub(crate) struct RecvPolicy {
    first: Skip,
    retries: Skip,
    /// The last message does not fit for a batch: it is large, or has descriptors.
    bulky: bool,
}

/// The state of one receive.
#[derive(Debug)]
pub(crate) struct RecvState {
    phase: RecvPhase,
    /// When it last yielded or parked.
    yielded: Yielded,
    busy: Busy,
    /// Whether it has asked the kernel.
    asked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RecvPhase {
    New,
    Retrying { left: u8 },
    Parked,
}

impl RecvState {
    pub(crate) fn new() -> Self {
        Self { phase: RecvPhase::New, yielded: Yielded::now(), busy: Busy::default(), asked: false }
    }

    /// Notes that it asks the kernel now.
    pub(crate) fn asking(&mut self) {
        self.asked = true;
    }

    pub(crate) fn has_asked(&self) -> bool {
        self.asked
    }

    /// Notes that it yields now, as [`Decision`] said.
    pub(crate) fn yielding(&mut self) {
        self.yielded = Yielded::now();
    }
}

impl RecvPolicy {
    /// Returns what a polled receive does for which nothing is completed.
    pub(crate) fn polled(&mut self, state: &mut RecvState, conditions: &Conditions) -> Decision {
        let queue = conditions.batched && !self.bulky && conditions.busy_until.is_none();
        match state.phase {
            RecvPhase::New if queue => Decision::Queue,
            RecvPhase::New if self.first.is_due() => Decision::Call,
            RecvPhase::New => self.begin_to_wait(state, conditions),
            RecvPhase::Retrying { .. } | RecvPhase::Parked => Decision::Call,
        }
    }

    /// Returns what a receive does after the kernel had nothing.
    pub(crate) fn found_nothing(
        &mut self,
        state: &mut RecvState,
        conditions: &Conditions,
    ) -> Decision {
        match state.phase {
            RecvPhase::New => {
                self.first.note(false, FIRST_PAUSE);
                self.begin_to_wait(state, conditions)
            }
            RecvPhase::Retrying { left } => {
                let worth_it = !conditions.multi_thread || state.yielded.others_ran();
                let left = if worth_it { left - 1 } else { 0 };
                if left > 0 && conditions.alone {
                    return retry(state, left);
                }
                let decision = match conditions.alone {
                    true => state.busy.found_nothing(state.yielded),
                    // The others depend on a receive that finds nothing to register for readiness.
                    false => Decision::Park,
                };
                if decision == Decision::Park {
                    self.retries.note(false, conditions.retries().pause);
                    state.phase = RecvPhase::Parked;
                } else {
                    state.phase = RecvPhase::Retrying { left: 1 };
                }
                decision
            }
            RecvPhase::Parked => Decision::Park,
        }
    }

    /// Notes that a call of this receive found a message.
    pub(crate) fn found(&mut self, state: &RecvState, conditions: &Conditions) {
        match state.phase {
            RecvPhase::New => self.first.note(true, FIRST_PAUSE),
            RecvPhase::Retrying { .. } => {
                let worth_it = !conditions.multi_thread || state.yielded.others_ran();
                self.retries.note(worth_it, conditions.retries().pause);
            }
            RecvPhase::Parked if state.yielded.many_ran() => self.retries = Skip::default(),
            RecvPhase::Parked => {}
        }
    }

    /// Notes the size and kind of a message. Large ones are not copied, and descriptors are claimed at once.
    pub(crate) fn note_message(&mut self, len: usize, has_descriptors: bool) {
        self.bulky = len > COPY_MAX || has_descriptors;
    }

    /// Returns whether the next message is expected to fit for a batch.
    pub(crate) fn may_batch(&self) -> bool {
        !self.bulky
    }

    fn begin_to_wait(&mut self, state: &mut RecvState, conditions: &Conditions) -> Decision {
        state.busy = Busy::new(conditions.busy_until);
        let left = match (self.retries.is_due(), self.retries.interval) {
            (false, _) => u8::from(state.busy.is_on()),
            (true, ..RARE_PAUSE) => conditions.retries().count,
            (true, _) => AFTER_EVENTS,
        };
        if left > 0 && conditions.alone {
            return retry(state, left);
        }
        state.phase = RecvPhase::Parked;
        Decision::Park
    }
}

fn retry(state: &mut RecvState, left: u8) -> Decision {
    state.phase = RecvPhase::Retrying { left };
    if left == AFTER_EVENTS { Decision::YieldToEvents } else { Decision::Yield }
}

/// Makes the runtime poll the task again, for [`Decision::Yield`] and [`Decision::YieldToEvents`].
pub(crate) fn yield_now(cx: &mut Context<'_>, decision: Decision) {
    if decision == Decision::YieldToEvents {
        // Its first poll wakes the task once the I/O driver has run.
        let _ = std::pin::pin!(tokio::task::yield_now()).poll(cx);
    } else {
        cx.waker().wake_by_ref();
    }
}

thread_local! {
    /// Receives that were polled on this thread.
    static POLLED: Cell<u32> = const { Cell::new(0) };
}

/// Notes that a receive is polled.
pub(crate) fn note_poll() {
    POLLED.with(|polled| polled.set(polled.get().wrapping_add(1)));
}

/// Where and when a task yielded or parked. It is small, since it is part of every receive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Yielded {
    /// An address, in steps of 16 bytes. Two threads of a process hardly have the same. If they do, each takes the other's
    /// polls for its own.
    thread: u32,
    polled: u32,
}

impl Yielded {
    pub(crate) fn now() -> Self {
        POLLED.with(|polled| Self {
            thread: (std::ptr::from_ref(polled).addr() >> 4) as u32,
            polled: polled.get(),
        })
    }

    /// Returns whether other receives have been polled here since.
    ///
    /// If not, no task here can have sent the message that this one waits for. On a multi-thread runtime, a message that comes
    /// all the same is from another core. Retrying for the next one would keep the two tasks apart, which costs both more than
    /// a wake-up.
    pub(crate) fn others_ran(self) -> bool {
        let now = Self::now();
        // This poll has been noted already.
        now.thread != self.thread || now.polled != self.polled.wrapping_add(1)
    }

    /// Returns whether many other receives have been polled here since: there is load, and retries may pay again.
    pub(crate) fn many_ran(self) -> bool {
        let now = Self::now();
        now.thread == self.thread && now.polled.wrapping_sub(self.polled) > MANY_POLLS
    }
}

/// The state of a receive that polls busily: when it stops, and how often it has called since other tasks last ran.
#[derive(Debug, Default)]
pub(crate) struct Busy {
    /// In nanoseconds, as [`nanos`] returns it.
    until: Option<NonZeroU64>,
    calls: u8,
}

/// Returns the time since the first use of this function. An `Instant` is twice as large.
fn nanos(instant: Instant) -> NonZeroU64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let since = instant.saturating_duration_since(*START.get_or_init(Instant::now));
    let nanos = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    NonZeroU64::MIN.saturating_add(nanos)
}

impl Busy {
    /// Calls in a row, some 4 µs.
    const CALLS: u8 = 32;

    pub(crate) fn new(until: Option<Instant>) -> Self {
        Self { until: until.map(nanos), calls: 0 }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.until.is_some()
    }

    /// Returns what a receive does after a call found nothing. `yielded` is where and when other tasks last ran.
    fn found_nothing(&mut self, yielded: Yielded) -> Decision {
        let Some(until) = self.until else { return Decision::Park };
        if nanos(Instant::now()) >= until {
            self.until = None;
            return Decision::Park;
        }
        // Where others receive on this thread, one of them may send what this one waits for.
        if self.calls < Self::CALLS && !yielded.others_ran() {
            self.calls += 1;
            return Decision::Spin;
        }
        self.calls = 0;
        Decision::YieldToEvents
    }
}

/// Skips tries after a miss, ever more of them. After a hit it skips none.
#[derive(Debug, Default)]
struct Skip {
    interval: u16,
    skip: u16,
}

impl Skip {
    fn is_due(&mut self) -> bool {
        if self.skip == 0 {
            return true;
        }
        self.skip -= 1;
        false
    }

    fn note(&mut self, found: bool, pause: u16) {
        if found {
            *self = Self::default();
        } else {
            self.interval = (self.interval * 2 + 1).min(pause);
            self.skip = self.interval;
        }
    }
}

/// What system calls and batches cost here, in nanoseconds. Measured when the first ring is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Costs {
    /// A receive that finds nothing, by a system call of its own.
    pub(crate) call: f32,
    /// `io_uring_enter(2)`, beyond the operations that it runs.
    pub(crate) enter: f32,
}

/// What a pass of the driver costs beside `io_uring_enter(2)`: its polls, and tasks that are polled once more.
const PASS_NANOS: f32 = 780.0;

/// Nanoseconds of a call that are not saved: what queueing and claiming cost for each operation.
const QUEUEING: f32 = 30.0;

/// A worker that batches continues down to this part of the threshold.
const KEEP_FRACTION: f32 = 0.5;

impl Costs {
    /// Returns from how many operations on a batch pays: `n * saved > enter + pass`.
    pub(crate) fn threshold(&self) -> f32 {
        (self.enter + PASS_NANOS) / (self.call - QUEUEING).max(10.0)
    }
}

/// Decides whether a worker batches. It has hysteresis, so that a changing load does not flap.
#[derive(Debug)]
pub(crate) struct WorkerLoad {
    batched: bool,
    /// Operations of a batch: of those that were made, or that would have been.
    average: f32,
}

impl WorkerLoad {
    pub(crate) fn new() -> Self {
        Self { batched: false, average: 0.0 }
    }

    pub(crate) fn is_batched(&self) -> bool {
        self.batched
    }

    /// Returns the average number of operations of a batch.
    pub(crate) fn average(&self) -> f32 {
        self.average
    }

    /// Notes, in direct mode, how many calls were made in one turn of the run queue. A batch holds half of them, since a task
    /// that sends and then receives waits for two batches.
    pub(crate) fn note_turn(&mut self, calls: u32, costs: &Costs) {
        self.note(calls as f32 / 2.0, 0.5, costs);
    }

    /// Notes, in batched mode, how many operations were in one batch, without receives that found nothing.
    pub(crate) fn note_batch(&mut self, operations: u32, costs: &Costs) {
        self.note(operations as f32, 0.05, costs);
    }

    fn note(&mut self, operations: f32, weight: f32, costs: &Costs) {
        self.average += (operations - self.average) * weight;
        let threshold = costs.threshold();
        self.batched = if self.batched {
            self.average > KEEP_FRACTION * threshold
        } else {
            self.average > threshold
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONDITIONS: Conditions =
        Conditions { multi_thread: true, batched: false, alone: true, busy_until: None };

    #[test]
    fn unsuccessful_retries_become_rare_and_a_successful_one_makes_them_frequent_again() {
        let mut policy = RecvPolicy::default();
        let mut retried = 0;
        for _ in 0..10_000 {
            let mut state = RecvState::new();
            let mut decision = policy.polled(&mut state, &CONDITIONS);
            let mut retries = false;
            while decision != Decision::Park {
                retries |= matches!(decision, Decision::Yield | Decision::YieldToEvents);
                decision = policy.found_nothing(&mut state, &CONDITIONS);
            }
            retried += u32::from(retries);
        }
        assert!((12..16).contains(&retried), "{retried}");
        let state = RecvState { phase: RecvPhase::Retrying { left: 1 }, ..RecvState::new() };
        policy.found(&state, &CONDITIONS);
        let mut state = RecvState::new();
        policy.found_nothing(&mut state, &CONDITIONS);
        assert_eq!(state.phase, RecvPhase::Retrying { left: RETRIES_WORKERS.count });
    }

    #[test]
    fn a_receive_that_others_depend_on_parks_at_once() {
        let mut policy = RecvPolicy::default();
        let conditions = Conditions { alone: false, ..CONDITIONS };
        let mut state = RecvState::new();
        assert_eq!(policy.polled(&mut state, &conditions), Decision::Call);
        assert_eq!(policy.found_nothing(&mut state, &conditions), Decision::Park);
    }

    #[test]
    fn a_busy_receive_parks_once_others_depend_on_it() {
        let mut policy = RecvPolicy::default();
        let busy_until = Instant::now().checked_add(std::time::Duration::from_secs(60));
        let conditions = Conditions { busy_until, ..CONDITIONS };
        let mut state = RecvState::new();
        policy.polled(&mut state, &conditions);
        for _ in 0..2 * u32::from(RETRIES_WORKERS.count) {
            assert_ne!(policy.found_nothing(&mut state, &conditions), Decision::Park);
        }
        let conditions = Conditions { alone: false, ..conditions };
        assert_eq!(policy.found_nothing(&mut state, &conditions), Decision::Park);
    }

    #[test]
    fn messages_for_a_batch_are_queued_and_bulky_ones_are_not() {
        let mut policy = RecvPolicy::default();
        let conditions = Conditions { batched: true, ..CONDITIONS };
        assert_eq!(policy.polled(&mut RecvState::new(), &conditions), Decision::Queue);
        policy.note_message(COPY_MAX + 1, false);
        assert_eq!(policy.polled(&mut RecvState::new(), &conditions), Decision::Call);
        policy.note_message(1, true);
        assert_eq!(policy.polled(&mut RecvState::new(), &conditions), Decision::Call);
        policy.note_message(COPY_MAX, false);
        assert_eq!(policy.polled(&mut RecvState::new(), &conditions), Decision::Queue);
    }

    #[test]
    fn a_worker_batches_under_load_and_stops_when_that_is_gone() {
        let costs = Costs { call: 214.0, enter: 480.0 };
        let mut mode = WorkerLoad::new();
        (0..100).for_each(|_| mode.note_turn(4, &costs));
        assert!(!mode.is_batched(), "one pair");
        (0..8).for_each(|_| mode.note_turn(64, &costs));
        assert!(mode.is_batched(), "16 pairs");
        (0..1000).for_each(|_| mode.note_batch(32, &costs));
        assert!(mode.is_batched());
        (0..200).for_each(|_| mode.note_batch(2, &costs));
        assert!(!mode.is_batched(), "one pair again");
    }

    #[test]
    fn a_load_at_the_threshold_does_not_flap() {
        let costs = Costs { call: 214.0, enter: 480.0 };
        let mut mode = WorkerLoad::new();
        let (mut changes, mut before) = (0, mode.is_batched());
        for turn in 0..1000 {
            let operations = costs.threshold() as u32 + turn % 2;
            if mode.is_batched() {
                mode.note_batch(operations, &costs);
            } else {
                mode.note_turn(2 * operations, &costs);
            }
            changes += u32::from(mode.is_batched() != before);
            before = mode.is_batched();
        }
        assert!(changes <= 1, "{changes}");
    }

    #[test]
    fn where_a_call_costs_more_smaller_batches_pay() {
        let cheap = Costs { call: 130.0, enter: 350.0 };
        let expensive = Costs { call: 526.0, enter: 850.0 };
        assert!(expensive.threshold() < cheap.threshold());
    }

    #[test]
    fn quick_skips_end_with_a_success() {
        let mut skip = Skip::default();
        assert!(skip.is_due());
        skip.note(false, 255);
        assert!(!skip.is_due());
        skip.note(true, 255);
        assert!(skip.is_due());
    }
}
