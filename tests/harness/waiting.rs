//! Waiting for what has to come, and futures that are polled by hand.

use std::panic::Location;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio_test::task::Spawn;

use super::Cell;

/// Some seconds on a machine that does other things, too.
pub const SOON: Duration =
    Duration::from_secs(if option_env!("TESTS_ARE_SLOW").is_some() { 60 } else { 20 });

/// It did not come soon.
#[derive(Debug)]
pub struct Late;

/// What has to come soon. A timeout polls the future once more when the time is over: what is ready
/// only then was not woken, and is late.
pub async fn in_time<F: Future>(future: F) -> Result<F::Output, Late> {
    let begin = Instant::now();
    let output = tokio::time::timeout(SOON, future).await.map_err(|_| Late)?;
    if begin.elapsed() < SOON { Ok(output) } else { Err(Late) }
}

/// Wait for what has to come soon. If it does not, the failure names the line that waited.
#[track_caller]
pub fn soon<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let line = Location::caller();
    async move {
        match in_time(future).await {
            Ok(output) => output,
            Err(Late) => panic!("still waiting after {SOON:?} at {line}"),
        }
    }
}

/// Poll a hand-polled future once. It must be pending.
#[track_caller]
pub fn starts_waiting<F: Future>(task: &mut Spawn<F>) {
    assert!(task.poll().is_pending(), "done at once");
}

/// Poll a future by hand until it no longer wakes itself, so that it waits for an event. Where there is a ring,
/// the operation has been submitted then.
#[track_caller]
pub fn arm<F: Future>(task: &mut Spawn<F>) -> impl Future<Output = ()> {
    arm_all(std::slice::from_mut(task))
}

#[track_caller]
pub fn arm_all<F: Future>(tasks: &mut [Spawn<F>]) -> impl Future<Output = ()> {
    tasks.iter_mut().for_each(starts_waiting);
    soon(async move {
        loop {
            breathe().await;
            let mut woken = tasks.iter_mut().filter(|task| task.is_woken()).peekable();
            if woken.peek().is_none() {
                return;
            }
            woken.for_each(starts_waiting);
        }
    })
}

/// Call a `poll_*` method once, with a waker that wakes no task.
pub fn once<T>(poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    poll(&mut Context::from_waker(Waker::noop()))
}

/// Let the runtime do what it has put off (a ring: submit, cancel, reap). There is nothing to wait
/// for where nothing has to happen.
pub async fn breathe() {
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// Wait until a hand-polled future has been woken, without polling it.
#[track_caller]
pub fn until_woken<F: Future>(task: &mut Spawn<F>) -> impl Future<Output = ()> {
    soon(async move {
        while !task.is_woken() {
            tokio::task::yield_now().await;
        }
    })
}

/// Poll all futures until all are done.
pub async fn all<F: Future + Unpin>(futures: Vec<F>) -> Vec<F::Output> {
    let mut done = all_as_completed(futures).await;
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, output)| output).collect()
}

/// Poll all futures, which wait in this order, until all are done. Their outputs in the order of service: that in which
/// they wait on one thread, else that in which they complete, since a driver on another thread can have a message between
/// two of these polls.
pub async fn all_served<F: Future + Unpin>(cell: Cell, futures: Vec<F>) -> Vec<F::Output> {
    if cell.flavor.is_single_threaded() {
        return all(futures).await;
    }
    all_as_completed(futures).await.into_iter().map(|(_, output)| output).collect()
}

async fn all_as_completed<F: Future + Unpin>(futures: Vec<F>) -> Vec<(usize, F::Output)> {
    let mut futures: Vec<_> = futures.into_iter().enumerate().collect();
    let mut done = Vec::new();
    std::future::poll_fn(|cx| {
        futures.retain_mut(|(index, future)| match std::pin::Pin::new(future).poll(cx) {
            Poll::Ready(output) => {
                done.push((*index, output));
                false
            }
            Poll::Pending => true,
        });
        if futures.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    done
}

/// Wait for a state that wakes no task. Panics with `what` if it does not come.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < SOON, "waited for nothing: {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// The same inside a runtime, which goes on meanwhile.
pub async fn until_in_runtime(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while begin.elapsed() < SOON {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("waited for nothing: {what}");
}
