//! The calls of one direction that wait, and those that are kept alive without being polled.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::task::coop::has_budget_remaining;

use crate::report::Count;
use crate::side::Side;

pub type Waiting<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A call that waits, and after how many polls it is dropped.
struct Call<T> {
    future: Waiting<T>,
    left: Option<u8>,
}

pub struct Line<T> {
    side: Arc<Side>,
    calls: Vec<Call<T>>,
    /// Left alone until then. The waker of their only poll wakes no task: what it was called for is for others.
    idle: Vec<(Waiting<T>, Instant)>,
}

/// So many calls are left alone at a time.
const IDLE: usize = 3;

impl<T: Send + 'static> Line<T> {
    pub fn new(side: &Arc<Side>) -> Self {
        Self { side: side.clone(), calls: Vec::new(), idle: Vec::new() }
    }

    /// How many calls are polled.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// The first poll. A task without budget would not reach the socket: it yields before. `alone` is for calls that
    /// are going to be left alone.
    pub async fn first_poll(
        future: impl Future<Output = T> + Send + 'static,
        alone: bool,
    ) -> Result<T, Waiting<T>> {
        while !has_budget_remaining() {
            tokio::task::yield_now().await;
        }
        let mut future: Waiting<T> = Box::pin(future);
        let first = std::future::poll_fn(|cx| {
            let mut nothing = Context::from_waker(Waker::noop());
            Poll::Ready(future.as_mut().poll(if alone { &mut nothing } else { cx }))
        });
        match first.await {
            Poll::Ready(output) => Ok(output),
            Poll::Pending => Err(future),
        }
    }

    /// Whether another call may be left alone, at random.
    pub fn leaves_alone(&self, rng: &mut Rng) -> bool {
        self.idle.len() < IDLE && rng.u8(..24) == 0
    }

    pub fn leave_alone(&mut self, future: Waiting<T>, rng: &mut Rng) {
        self.side.count(Count::LeftAlone, 1);
        self.idle.push((future, Instant::now() + Duration::from_millis(rng.u64(1..40))));
    }

    /// A call that waits is polled again, except for some of a hundred. These are dropped, now or after some polls.
    pub fn keep(&mut self, future: Waiting<T>, dropped: u64, rng: &mut Rng) {
        let dropped = rng.u64(..100) < dropped;
        match dropped.then(|| rng.u8(..3)) {
            Some(0) => self.discard(future, rng.u8(..4) == 0),
            left => self.calls.push(Call { future, left }),
        }
    }

    /// Those that were left alone for long enough are polled again, or dropped.
    pub fn resume(&mut self, rng: &mut Rng) {
        while let Some(at) = self.idle.iter().position(|(_, until)| *until <= Instant::now()) {
            let (future, _) = self.idle.swap_remove(at);
            match rng.u8(..4) {
                0 => self.discard(future, true),
                1 => self.discard(future, false),
                _ => self.calls.push(Call { future, left: None }),
            }
        }
    }

    fn discard(&self, future: Waiting<T>, elsewhere: bool) {
        if elsewhere {
            self.side.count(Count::Elsewhere, 1);
            self.side.shared().elsewhere.discard(future);
        }
    }

    /// Polls all, until one of them is over or dropped. Returns what came.
    pub async fn next(&mut self) -> Vec<T> {
        std::future::poll_fn(|cx| {
            let (mut came, mut dropped) = (Vec::new(), Vec::new());
            let mut at = 0;
            while let Some(call) = self.calls.get_mut(at) {
                match (call.future.as_mut().poll(cx), &mut call.left) {
                    (Poll::Ready(output), _) => {
                        came.push(output);
                        self.calls.remove(at);
                    }
                    (Poll::Pending, Some(0)) => dropped.push(self.calls.remove(at).future),
                    (Poll::Pending, left) => {
                        *left = left.map(|left| left - 1);
                        at += 1;
                    }
                }
            }
            if came.is_empty() && dropped.is_empty() {
                return Poll::Pending;
            }
            for (number, future) in dropped.into_iter().enumerate() {
                self.discard(future, number % 4 == 1);
            }
            Poll::Ready(came)
        })
        .await
    }
}
