//! The kernel's queues, and readiness as `epoll/readiness.rs` gets it from tokio.

use std::collections::VecDeque;

use super::{Gone, Model};
use crate::common::recv_queue::Outcome;
use crate::epoll::readiness::Direction;

/// The peer's queue.
const CAPACITY: usize = 2;

/// Operations without waiting before a registration is dropped.
const MODEL_UNUSED_OPERATIONS: u8 = 3;

/// Errors are counted as messages are.
const FIRST_ERROR: i32 = 1000;

pub(super) fn number(outcome: Outcome<u64>) -> u64 {
    outcome.unwrap_or_else(|errno| (errno - FIRST_ERROR) as u64)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Message,
    /// It does not fit for a batch.
    Bulky,
    Error,
}

#[derive(Debug, Default)]
pub(super) struct Kernel {
    pub(super) inbound: VecDeque<(u64, Kind)>,
    pub(super) arrived: u64,
    /// Messages in the peer's queue.
    pub(super) outbound: usize,
    pub(super) went_out: Vec<u64>,
    pub(super) surprise: Option<(u8, bool)>,
}

#[derive(Debug, Default)]
pub(super) struct ModelReadiness {
    registered: bool,
    wide: bool,
    armed: bool,
    unused: u8,
    closed: bool,
    /// Registering fails once.
    pub(super) refuses: bool,
    /// tokio's I/O driver is gone.
    pub(super) over: bool,

    // As tokio's `ScheduledIo` and the kernel's ready list have it.
    event: bool,
    tick: u32,
    ready: [bool; 2],
    wakers: [bool; 2],
    /// Calls of the socket's waker that are about to begin, and that have got to `signal`.
    firing: u32,
    signalling: u32,
}

impl ModelReadiness {
    pub(super) fn has_event(&self) -> bool {
        self.registered && self.event
    }

    pub(super) fn is_firing(&self) -> bool {
        self.firing + self.signalling > 0
    }

    /// Whether the socket's waker will be called.
    pub(super) fn will_wake(&self, direction: Direction) -> bool {
        self.is_firing() || self.registered && self.wakers[direction as usize]
    }

    pub(super) fn take_wakers(&mut self) {
        let wakers = std::mem::take(&mut self.wakers);
        self.firing += wakers.into_iter().map(u32::from).sum::<u32>();
    }

    fn drop_registration(&mut self) {
        (self.registered, self.wide, self.armed, self.unused) = (false, false, false, 0);
        (self.event, self.ready, self.wakers) = (false, [false; 2], [false; 2]);
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
        self.drop_registration();
    }

    /// As `Readiness::did_without`.
    pub(super) fn did_without(&mut self) -> bool {
        if !self.registered {
            return false;
        }
        self.unused += 1;
        self.unused >= MODEL_UNUSED_OPERATIONS
    }

    pub(super) fn drop_unused(&mut self) {
        if self.unused >= MODEL_UNUSED_OPERATIONS {
            self.drop_registration();
        }
    }

    pub(super) fn is_used(&mut self) {
        self.unused = 0;
    }
}

impl Model {
    pub(super) fn arrive(&mut self, kind: Kind) {
        self.kernel.inbound.push_back((self.kernel.arrived, kind));
        self.kernel.arrived += 1;
        self.readiness.event = true;
    }

    pub(super) fn peer_reads(&mut self) {
        if self.kernel.outbound > 0 {
            self.kernel.outbound -= 1;
            self.readiness.event |= self.readiness.wide;
        }
    }

    /// Notes that the kernel has answered that there is nothing.
    fn surprise(&mut self) {
        match &mut self.kernel.surprise {
            Some((0, heard)) => {
                let heard = *heard;
                self.kernel.surprise = None;
                self.arrive(Kind::Message);
                if heard {
                    self.hear();
                }
            }
            Some((after, _)) => *after -= 1,
            None => {}
        }
    }

    /// Makes a `recv(2)`. `None` stands for `EAGAIN`.
    pub(super) fn kernel_receive(&mut self) -> Option<(Outcome<u64>, bool)> {
        let Some((number, kind)) = self.kernel.inbound.pop_front() else {
            self.surprise();
            return None;
        };
        let outcome = match kind {
            Kind::Error => Err(FIRST_ERROR + number as i32),
            Kind::Message | Kind::Bulky => Ok(number),
        };
        Some((outcome, kind == Kind::Bulky))
    }

    pub(super) fn kernel_is_readable(&mut self) -> Option<()> {
        let is_readable = !self.kernel.inbound.is_empty();
        if !is_readable {
            self.surprise();
        }
        is_readable.then_some(())
    }

    pub(super) fn kernel_is_writable(&mut self) -> Option<()> {
        (self.kernel.outbound < CAPACITY).then_some(())
    }

    /// Makes a `send(2)`. `None` stands for `EAGAIN`.
    pub(super) fn kernel_send(&mut self, message: u64) -> Option<()> {
        self.kernel_is_writable()?;
        self.kernel.outbound += 1;
        self.goes_out(message);
        Some(())
    }

    /// `Readiness::park`, with `Core::park` around it.
    pub(super) fn park<T>(
        &mut self,
        direction: Direction,
        call: impl FnMut(&mut Self) -> Option<T>,
    ) -> Result<Option<T>, Gone> {
        self.check_runtime()?;
        if self.readiness.closed {
            return Ok(None);
        }
        let widens = direction == Direction::Write && !self.readiness.wide;
        let lost = widens && self.readiness.armed;
        if widens {
            self.readiness.drop_registration();
            self.readiness.wide = true;
        }
        let parked = self.park_in(direction, call);
        if lost {
            self.readiness.armed = false;
            self.signal_or_wake_all();
        }
        parked
    }

    fn park_in<T>(
        &mut self,
        direction: Direction,
        mut call: impl FnMut(&mut Self) -> Option<T>,
    ) -> Result<Option<T>, Gone> {
        self.readiness.unused = 0;
        if !self.readiness.registered {
            if let Some(found) = call(self) {
                return Ok(Some(found));
            }
            if std::mem::take(&mut self.readiness.refuses) {
                return Err(Gone);
            }
            self.readiness.registered = true;
            // A new registration reports what is there already.
            self.readiness.event = true;
        }
        loop {
            if self.readiness.over {
                return Err(Gone);
            }
            if !self.readiness.ready[direction as usize] {
                self.readiness.wakers[direction as usize] = true;
                self.readiness.armed = true;
                return Ok(None);
            }
            let tick = self.readiness.tick;
            if let Some(found) = call(self) {
                return Ok(Some(found));
            }
            if self.readiness.tick == tick {
                self.readiness.ready[direction as usize] = false;
            }
        }
    }

    pub(super) fn park_until_readable(&mut self) -> Result<bool, Gone> {
        Ok(self.park(Direction::Read, Self::kernel_is_readable)?.is_none())
    }

    pub(super) fn park_until_writable(&mut self) -> Result<bool, Gone> {
        Ok(self.park(Direction::Write, Self::kernel_is_writable)?.is_none())
    }

    /// Gives tokio's I/O driver an event.
    pub(super) fn hear(&mut self) {
        if !self.readiness.has_event() || self.readiness.over {
            self.readiness.event = false;
            return;
        }
        self.readiness.event = false;
        let now = [
            !self.kernel.inbound.is_empty(),
            self.readiness.wide && self.kernel.outbound < CAPACITY,
        ];
        if now == [false, false] {
            return;
        }
        self.readiness.tick += 1;
        for (direction, now) in now.into_iter().enumerate() {
            if now {
                self.readiness.ready[direction] = true;
                let waker = std::mem::take(&mut self.readiness.wakers[direction]);
                self.readiness.firing += u32::from(waker);
            }
        }
    }

    /// Calls the socket's waker, as tokio does: `Core::wake`, in two steps.
    pub(super) fn fire(&mut self) {
        if self.readiness.signalling > 0 {
            self.readiness.signalling -= 1;
            self.signal_or_wake_all();
        } else if self.readiness.firing > 0 {
            self.readiness.firing -= 1;
            self.readiness.signalling += 1;
            self.readiness.armed = false;
        }
    }
}
