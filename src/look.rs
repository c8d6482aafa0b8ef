//! When a receive looks into the kernel by itself before it is parked.
//!
//! Parking is what a receive costs most: an event, a wake-up and often a call that finds nothing.
//! Two looks can save it. The *first*, at once, finds a message where the sender is faster. The
//! *second* finds it after the tasks that are ready have run, for it is often one of them that
//! sends the answer: the task stands aside by waking itself, which puts it behind the others. A look
//! that finds nothing is a wasted system call, so whether to look follows what looks have found.

use std::cell::Cell;
use std::num::NonZeroU64;
use std::sync::OnceLock;
use std::task::Context;
use std::time::Instant;

/// How often a receive stands aside and looks again before it is parked.
const SECOND_LOOKS: u8 = 5;

/// Before so many of these looks are left it lets the I/O driver run, too. Whoever is to answer may be
/// parked: then his event comes, which wakes the ring's driver, which wakes him, who answers; the looks
/// that are left wait for that. With fewer, two who are parked never find out that they need not be.
const AFTER_EVENTS: u8 = 3;

/// More polls than one other pair makes while a receive is parked.
const MANY: u32 = 6;

/// So many receives at most between two tries that find nothing. A first look in vain is one system
/// call; standing aside in vain has a multi-thread runtime wake another worker for nothing, which costs
/// as much as ten receives.
const FIRST_PAUSE: u16 = 255;
const SECOND_PAUSE: u16 = 4095;

/// With such a pause a look is expected to be in vain. It begins behind the I/O events, for that has no
/// other worker woken.
const RARE: u16 = 64;

/// What looks on one socket have found.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    first: Probe<FIRST_PAUSE>,
    second: Probe<SECOND_PAUSE>,
}

thread_local! {
    /// Receives that were polled on this thread.
    static POLLED: Cell<u32> = const { Cell::new(0) };
}

/// A receive is polled.
pub(crate) fn note_poll() {
    POLLED.with(|polled| polled.set(polled.get().wrapping_add(1)));
}

/// Where and when a task stood aside. Small, for it is part of every receive that waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Aside {
    /// An address, in steps of 16 bytes: two threads of a process hardly have the same, and take each
    /// other's polls for their own if they do.
    thread: u32,
    polled: u32,
}

impl Aside {
    pub(crate) fn now() -> Self {
        POLLED.with(|polled| Self {
            thread: (std::ptr::from_ref(polled).addr() >> 4) as u32,
            polled: polled.get(),
        })
    }

    /// Whether other receives have been polled here since. If not, nobody here can have sent what this
    /// one waits for. On a multi-thread runtime a message that is found all the same has come from
    /// another core, and looking for the next one would keep the two apart, which costs both more than
    /// a wake-up.
    pub(crate) fn others_ran(self) -> bool {
        let now = Self::now();
        // This poll has been noted already.
        now.thread != self.thread || now.polled != self.polled.wrapping_add(1)
    }

    /// Whether many other receives have been polled here since: there is load, and looks may pay again.
    pub(crate) fn many_ran(self) -> bool {
        let now = Self::now();
        now.thread == self.thread && now.polled.wrapping_sub(self.polled) > MANY
    }
}

/// Let other tasks run and come back, `looks` more times: behind the tasks that are ready, and once
/// behind those as well that I/O events make ready.
pub(crate) fn stand_aside(cx: &mut Context<'_>, looks: u8) -> Aside {
    if looks == AFTER_EVENTS {
        return let_events_in(cx);
    }
    let aside = Aside::now();
    cx.waker().wake_by_ref();
    aside
}

/// Let other tasks run, those as well that I/O events make ready, and come back.
pub(crate) fn let_events_in(cx: &mut Context<'_>) -> Aside {
    let aside = Aside::now();
    // Its first poll has the task woken once the I/O driver has been looked at.
    let _ = std::pin::pin!(tokio::task::yield_now()).poll(cx);
    aside
}

/// A receive that polls busily: when it stops, and how often it has looked since it last let others
/// run.
#[derive(Debug, Default)]
pub(crate) struct Busy {
    /// In nanoseconds, as [`nanos`] has it.
    until: Option<NonZeroU64>,
    looks: u8,
}

/// Since the first use of this, for an `Instant` is twice as large.
fn nanos(instant: Instant) -> NonZeroU64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let since = instant.saturating_duration_since(*START.get_or_init(Instant::now));
    let nanos = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    NonZeroU64::MIN.saturating_add(nanos)
}

/// What a receive that polls busily does after a look in vain.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum AfterLook {
    LookAgain,
    LetOthersRun,
    Park,
}

impl Busy {
    /// Looks in a row, some 4 µs.
    const LOOKS: u8 = 32;

    pub(crate) fn new(until: Option<Instant>) -> Self {
        Self { until: until.map(nanos), looks: 0 }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.until.is_some()
    }

    /// `aside`: where and when the receive last let others run.
    pub(crate) fn looked(&mut self, aside: Aside) -> AfterLook {
        let Some(until) = self.until else { return AfterLook::Park };
        if nanos(Instant::now()) >= until {
            self.until = None;
            return AfterLook::Park;
        }
        // Where others receive on this thread, one of them may send what this one waits for.
        if self.looks < Self::LOOKS && !aside.others_ran() {
            self.looks += 1;
            return AfterLook::LookAgain;
        }
        self.looks = 0;
        AfterLook::LetOthersRun
    }
}

/// After a miss the next tries are skipped, ever more of them; after a hit none is.
#[derive(Debug, Default)]
struct Probe<const PAUSE: u16> {
    interval: u16,
    skip: u16,
}

impl Looks {
    /// Whether to look at once.
    pub(crate) fn first_is_due(&mut self) -> bool {
        self.first.is_due()
    }

    pub(crate) fn first_found(&mut self, found: bool) {
        self.first.note(found);
    }

    /// How often to stand aside and look again.
    pub(crate) fn second_looks(&mut self) -> u8 {
        match (self.second.is_due(), self.second.interval) {
            (false, _) => 0,
            (true, ..RARE) => SECOND_LOOKS,
            (true, _) => AFTER_EVENTS,
        }
    }

    /// A receive was parked, and many others ran meanwhile.
    pub(crate) fn second_may_pay(&mut self) {
        self.second = Probe::default();
    }

    /// What came of the second looks, or would have come of them.
    pub(crate) fn second_found(&mut self, found: bool) {
        self.second.note(found);
    }
}

impl<const PAUSE: u16> Probe<PAUSE> {
    fn is_due(&mut self) -> bool {
        if self.skip == 0 {
            return true;
        }
        self.skip -= 1;
        false
    }

    fn note(&mut self, found: bool) {
        if found {
            *self = Self::default();
        } else {
            self.interval = (self.interval * 2 + 1).min(PAUSE);
            self.skip = self.interval;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misses_make_looks_rare_and_a_hit_makes_them_frequent_again() {
        let mut looks = Looks::default();
        let mut looked = 0;
        for _ in 0..10_000 {
            if looks.second_looks() > 0 {
                looked += 1;
                looks.second_found(false);
            }
        }
        assert!((12..16).contains(&looked), "{looked}");
        looks.second_found(true);
        assert_eq!(looks.second_looks(), SECOND_LOOKS);
    }
}
