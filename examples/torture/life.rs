//! A life, from one end: it sends and receives, drops calls at random polls, and at times changes its socket for
//! another with the same descriptor.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fastrand::Rng;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::plan::Ending;
use crate::report::Count;
use crate::side::Side;
use crate::{handover, receive, send, watch};

pub async fn live(mut side: Arc<Side>) {
    let mut rng = Rng::with_seed(side.plan.seed ^ side.shared().end as u64);
    let closes = side.plan.ending == Ending::Closes(side.shared().end);
    let end = closes.then(|| Instant::now() + Duration::from_millis(side.plan.millis));
    while leg(&side, end, &mut rng).await == Over::Leg {
        match handover::renew(side, rng.u8(..3) == 0).await {
            Some(renewed) => side = renewed,
            None => return,
        }
    }
    if rng.u8(..3) == 0 {
        side.count(Count::Elsewhere, 1);
        let shared = side.shared().clone();
        shared.elsewhere.discard(side);
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Over {
    Life,
    /// The descriptor can be taken out.
    Leg,
}

/// One socket's part of a life.
async fn leg(side: &Arc<Side>, end: Option<Instant>, rng: &mut Rng) -> Over {
    side.begin_leg();
    let mut sending = Task::spawn(send::all(side.clone(), rng.fork()));
    let mut receiving = Task::spawn(receive::all(side.clone(), rng.fork()));
    let watching = side.plan.watched.then(|| Task::spawn(watch::beside(side.clone(), rng.fork())));
    let handover = side.plan.handovers.then(|| Duration::from_millis(rng.u64(5..300)));
    let over = tokio::select! {
        () = async { receiving.join().await; sending.join().await } => Over::Life,
        () = tokio::time::sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => {
            side.count(Count::Aborts, 2);
            sending.abort().await;
            receiving.abort().await;
            Over::Life
        }
        () = tokio::time::sleep(handover.unwrap_or_default()), if handover.is_some() => {
            stop(side, &mut sending, &mut receiving, rng).await
        }
    };
    if let Some(mut watching) = watching {
        watching.abort().await;
    }
    over
}

/// In mid-traffic, unless the last message of this end is on its way.
async fn stop(side: &Arc<Side>, sending: &mut Task, receiving: &mut Task, rng: &mut Rng) -> Over {
    if side.whole {
        side.stopping.store(true, Ordering::SeqCst);
        receiving.join().await;
    }
    if side.claim() {
        side.stopping.store(false, Ordering::SeqCst);
        if side.whole {
            *receiving = Task::spawn(receive::all(side.clone(), rng.fork()));
        }
        receiving.join().await;
        sending.join().await;
        return Over::Life;
    }
    sending.abort().await;
    receiving.abort().await;
    Over::Leg
}

struct Task(Option<JoinHandle<()>>);

impl Task {
    fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Some(tokio::spawn(future)))
    }

    /// Can be dropped, and called again.
    async fn join(&mut self) {
        if let Some(handle) = &mut self.0 {
            let _ = handle.await;
            self.0 = None;
        }
    }

    async fn abort(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
        self.join().await;
    }
}
