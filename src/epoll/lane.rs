//! One direction of one socket: who may call the kernel now. Pure: takes no lock, wakes nobody.

use std::task::Waker;

use crate::foreign;
pub(super) use crate::queue::Ticket;
use crate::queue::{Queue, Tickets};
use crate::watch::{Bell, Settled, Watchers};

/// Those who wait, first polled, first served. Only the first may call the kernel and wait for
/// readiness; with nobody waiting, whoever comes may.
#[derive(Debug, Default)]
pub(super) struct Lane {
    waiters: Queue<Waiter>,
    /// How many have stood here.
    tickets: Tickets,
    watchers: Watchers,
}

#[derive(Debug)]
struct Waiter {
    ticket: Ticket,
    /// How to tell him that he is first. `None` when he knows.
    waker: Option<Waker>,
    /// How often he looks into the kernel without waiting for readiness.
    looks: u8,
}

/// Whom to wake after the lock is gone.
#[derive(Debug, Default)]
#[must_use]
pub(super) struct Wakers {
    first: Option<Waker>,
    settled: Settled,
}

impl Wakers {
    pub(super) fn wake(self, bell: &Bell) {
        if let Some(waker) = self.first {
            foreign::wake(waker);
        }
        self.settled.tell(bell);
    }
}

impl Lane {
    pub(super) fn is_idle(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Join the queue.
    pub(super) fn enqueue(&mut self, waker: &Waker, looks: u8) -> Ticket {
        let ticket = self.tickets.next();
        let waker = (!self.is_idle()).then(|| waker.clone());
        self.waiters.push_back(Waiter { ticket, waker, looks });
        ticket
    }

    pub(super) fn is_turn(&self, ticket: Ticket) -> bool {
        self.waiters.front().is_some_and(|first| first.ticket == ticket)
    }

    /// Remember how to wake a caller whose turn it is not. Returns the waker this replaces, to be
    /// dropped after the lock is gone.
    pub(super) fn remember(&mut self, ticket: Ticket, waker: &Waker) -> Option<Waker> {
        let waiter = self.waiters.iter_mut().find(|waiter| waiter.ticket == ticket)?;
        match &mut waiter.waker {
            Some(known) if known.will_wake(waker) => None,
            known => known.replace(waker.clone()),
        }
    }

    /// How often the first looks by himself.
    pub(super) fn looks(&mut self) -> Option<&mut u8> {
        self.waiters.front_mut().map(|first| &mut first.looks)
    }

    /// A caller leaves: served, or not interested any more.
    pub(super) fn leave(&mut self, ticket: Ticket) -> Wakers {
        let Some(at) = self.waiters.iter().position(|waiter| waiter.ticket == ticket) else {
            return Wakers::default();
        };
        self.waiters.remove(at);
        let first = match at {
            0 if !cfg!(planted = "next_not_woken") => {
                self.waiters.front_mut().and_then(|first| first.waker.take())
            }
            _ => None,
        };
        let settled = if self.is_idle() { self.watchers.settled() } else { Settled::default() };
        Wakers { first, settled }
    }

    /// Those who want to know when the lane is idle.
    pub(super) fn watchers(&mut self) -> &mut Watchers {
        &mut self.watchers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Count(AtomicUsize);
    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn waker() -> (Arc<Count>, Waker) {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        (count.clone(), count.into())
    }

    #[test]
    fn the_turn_goes_to_the_next_in_line_and_only_he_is_woken() {
        let mut lane = Lane::default();
        let wakers: Vec<_> = (0..3).map(|_| waker()).collect();
        let tickets: Vec<_> = wakers.iter().map(|(_, waker)| lane.enqueue(waker, 0)).collect();
        assert!(lane.is_turn(tickets[0]));
        assert!(!lane.is_turn(tickets[1]));
        lane.leave(tickets[0]).wake(&Bell::default());
        let woken: Vec<_> =
            wakers.iter().map(|(count, _)| count.0.load(Ordering::Relaxed)).collect();
        assert_eq!(woken, [0, 1, 0]);
        assert!(lane.is_turn(tickets[1]));
        assert!(!lane.is_turn(tickets[2]));
    }

    #[test]
    fn somebody_who_leaves_the_middle_of_the_line_wakes_nobody() {
        let mut lane = Lane::default();
        let wakers: Vec<_> = (0..3).map(|_| waker()).collect();
        let tickets: Vec<_> = wakers.iter().map(|(_, waker)| lane.enqueue(waker, 0)).collect();
        lane.leave(tickets[1]).wake(&Bell::default());
        assert!(wakers.iter().all(|(count, _)| count.0.load(Ordering::Relaxed) == 0));
        lane.leave(tickets[0]).wake(&Bell::default());
        assert!(lane.is_turn(tickets[2]));
    }

    #[test]
    fn watchers_are_woken_once_the_lane_is_idle() {
        let mut lane = Lane::default();
        let (_, waiter) = waker();
        let (count, watcher) = waker();
        let first = lane.enqueue(&waiter, 0);
        let second = lane.enqueue(&waiter, 0);
        assert!(lane.watchers().park(&watcher).is_none());
        // Parked twice, woken once. Whether `will_wake` knows the waker again is not promised.
        drop(lane.watchers().park(&watcher));
        lane.leave(first).wake(&Bell::default());
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        lane.leave(second).wake(&Bell::default());
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }
}
