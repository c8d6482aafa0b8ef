//! How much of tokio's cooperative budget a call takes.
//!
//! Every call passes the budget, which is 128 units for each poll of a task. A unit stands for some work. tokio's own
//! sockets take one for each operation. A small message takes 0.3 us here, and tasks that yield after 128 of those spend
//! their time on yielding: 64 of them on one socket are slower by a quarter (docs/design-notes/coop-budget.md). So quick
//! calls share a unit. Where a message is large, or the caller does much work for each, every call takes one.

use std::cell::Cell;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use tokio::task::coop::{self, RestoreOnPending};

/// The time that a unit stands for. With 128 units a task runs for 2 ms at most, if its calls are quick.
const UNIT_TIME: Duration = Duration::from_micros(16);

/// At most so many calls share a unit. The clock is read once for as many.
const AT_MOST: u32 = 16;

#[derive(Clone, Copy)]
struct SharedUnit {
    /// How many calls share the current unit.
    calls: u32,
    /// How many of them are still to come.
    left: u32,
    since: Option<Instant>,
}

thread_local! {
    /// State of all calls on this thread. Which tasks they belong to does not matter: in the long run every task takes a
    /// unit as often as it has worked for one.
    static SHARED: Cell<SharedUnit> = const { Cell::new(SharedUnit { calls: 1, left: 1, since: None }) };
}

/// Takes a call's share of a unit, after a call that had `budget` for it.
pub(crate) fn take(budget: RestoreOnPending) {
    SHARED.with(|cell| {
        let mut shared = cell.get();
        shared.left -= 1;
        if shared.left == 0 {
            let now = Instant::now();
            let took = shared.since.map_or(UNIT_TIME, |since| now.duration_since(since));
            shared.calls = share(shared.calls, took);
            shared.left = shared.calls;
            shared.since = Some(now);
            budget.made_progress();
        }
        cell.set(shared);
    });
}

/// Returns how many calls share a unit if the last `calls` took so long.
fn share(calls: u32, took: Duration) -> u32 {
    let fitting = UNIT_TIME.as_nanos() * u128::from(calls) / took.as_nanos().max(1);
    u32::try_from(fitting).unwrap_or(u32::MAX).clamp(1, AT_MOST)
}

/// Takes a share of a unit for a descriptor that was closed for the current task.
///
/// A message can bring 253 descriptors, and closing them takes longer than everything else about it. A task has 128 units.
pub(crate) fn closed_one() {
    const SHARE: u8 = 16;
    thread_local! {
        static CLOSED: Cell<u8> = const { Cell::new(0) };
    }
    let closed = CLOSED.get() + 1;
    CLOSED.set(closed % SHARE);
    // Where no unit is left, the task yields at its next call, which wakes it. Nothing waits here.
    if closed == SHARE
        && let Poll::Ready(budget) = coop::poll_proceed(&mut Context::from_waker(Waker::noop()))
    {
        budget.made_progress();
    }
}

/// Takes a share of a unit for an operation that did not wait.
pub(crate) fn poll_done(cx: &mut Context<'_>) -> Poll<()> {
    take(ready!(coop::poll_proceed(cx)));
    Poll::Ready(())
}

/// Takes a share of a unit, as [`poll_done`].
pub(crate) async fn done() {
    std::future::poll_fn(poll_done).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_descriptors_ends_a_tasks_turn() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime
            .block_on(runtime.spawn(async {
                (0..16 * 127).for_each(|_| closed_one());
                assert!(coop::has_budget_remaining());
                (0..16).for_each(|_| closed_one());
                assert!(!coop::has_budget_remaining());
                // No unit is left here, but there is one in the next turn.
                (0..16).for_each(|_| closed_one());
                coop::consume_budget().await;
                assert!(coop::has_budget_remaining());
            }))
            .unwrap();
    }

    #[test]
    fn quick_calls_share_a_unit_and_others_do_not() {
        let nanos = Duration::from_nanos;
        assert_eq!(share(1, nanos(300)), 16);
        assert_eq!(share(16, nanos(16 * 300)), 16);
        assert_eq!(share(16, nanos(16 * 2_000)), 8);
        assert_eq!(share(8, nanos(8 * 10_000)), 1);
        assert_eq!(share(16, Duration::from_secs(60)), 1);
        assert_eq!(share(1, Duration::ZERO), 16);
    }
}
