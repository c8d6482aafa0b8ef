//! One end of a connection, for one life: it sends and receives as the plan says, drops calls at
//! random polls, checks what comes, and hands in its record when nobody can add to it.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak, mpsc};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::net::sockopt;
use tokio::task::coop::has_budget_remaining;
use tokio_seqpacket::UnixSeqpacket;

use crate::control::Frame;
use crate::descriptors::{Files, Limit, Pipe, Pipes};
use crate::history::{Received, Record, Sent};
use crate::plan::{End, Ending, Plan};
use crate::report::{Count, Counters};
use crate::{receive, send};

/// What all ends in one process share.
pub struct Shared {
    pub begin: Instant,
    pub end: End,
    pub files: Files,
    pub pipes: Pipes,
    pub limit: Limit,
    pub counters: Counters,
    pub outbox: mpsc::Sender<Frame>,
    /// Those that live, by slot, for a failure message.
    pub sides: Mutex<HashMap<u16, Weak<Side>>>,
}

impl Shared {
    pub fn new(end: End, outbox: mpsc::Sender<Frame>) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            begin: Instant::now(),
            end,
            files: Files::new()?,
            pipes: Pipes::default(),
            limit: Limit::default(),
            counters: Counters::default(),
            outbox,
            sides: Mutex::default(),
        }))
    }

    pub fn fail(&self, text: String) {
        // Nobody listens once the first failure has been told.
        let _ = self.outbox.send(Frame::Failure(text));
    }
}

pub struct Side {
    pub socket: UnixSeqpacket,
    pub plan: Plan,
    /// The largest message.
    pub largest: usize,
    /// The other end has gone.
    pub gone: AtomicBool,
    /// The runtime of this end is about to go.
    pub closing: Arc<AtomicBool>,
    resets: AtomicU32,
    /// After the socket: handed in once that is closed.
    pub book: Book,
}

/// What happened here.
pub struct Book {
    pub shared: Arc<Shared>,
    pub sent: Mutex<Sent>,
    pub received: Mutex<Received>,
    pub pipes: Mutex<Vec<Pipe>>,
    slot: u16,
    life: u64,
}

impl Book {
    pub fn record(&self) -> Record {
        Record {
            slot: self.slot,
            life: self.life,
            end: self.shared.end,
            sent: self.sent.lock().unwrap().clone(),
            received: self.received.lock().unwrap().clone(),
        }
    }
}

impl Drop for Book {
    fn drop(&mut self) {
        let of = format!("connection {} life {}, {:?}", self.slot, self.life, self.shared.end);
        let pipes = std::mem::take(&mut *self.pipes.lock().unwrap());
        self.shared.pipes.hand_in(pipes, &of);
        let _ = self.shared.outbox.send(Frame::Record(Box::new(self.record())));
    }
}

/// How the kernel accounts a message in the send buffer.
const OVERHEAD: usize = 32;

impl Side {
    pub fn adopt(
        shared: &Arc<Shared>,
        closing: &Arc<AtomicBool>,
        plan: Plan,
        fd: OwnedFd,
    ) -> io::Result<Arc<Self>> {
        let _need = shared.limit.need();
        let largest = sockopt::socket_send_buffer_size(&fd)?.saturating_sub(OVERHEAD);
        let options = tokio_seqpacket::Options::new().keep_ancillary(true);
        let socket = options.backend(plan.engine(shared.end).selection()).socket_from_fd(fd)?;
        let book = Book {
            shared: shared.clone(),
            sent: Mutex::default(),
            received: Mutex::default(),
            pipes: Mutex::default(),
            slot: plan.slot,
            life: plan.life,
        };
        let side = Arc::new(Self {
            socket,
            largest,
            gone: AtomicBool::new(false),
            closing: closing.clone(),
            resets: AtomicU32::new(0),
            book,
            plan,
        });
        let slot = side.plan.slot;
        shared.sides.lock().unwrap().insert(slot, Arc::downgrade(&side));
        Ok(side)
    }

    pub fn shared(&self) -> &Arc<Shared> {
        &self.book.shared
    }

    pub fn count(&self, count: Count, number: u64) {
        self.book.shared.counters.add(count, number);
    }

    pub fn fail(&self, what: &str) {
        let Plan { slot, life, engines, .. } = &self.plan;
        let end = self.shared().end;
        self.shared().fail(format!(
            "connection {slot} life {life} ({engines:?}, largest message {}), at {end:?}: {what}\n  {}",
            self.largest,
            self.book.record().describe()
        ));
    }

    /// A call says `ECONNRESET`, which may happen once.
    pub fn reset(&self) {
        self.count(Count::Resets, 1);
        if self.resets.fetch_add(1, Ordering::Relaxed) > 0 {
            self.fail("ECONNRESET for the second time");
        }
    }

    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }
}

/// A life, from this end.
pub async fn live(side: Arc<Side>) {
    let mut rng = Rng::with_seed(side.plan.seed ^ side.shared().end as u64);
    let sending = tokio::spawn(send::all(side.clone(), rng.fork()));
    let receiving = tokio::spawn(receive::all(side.clone(), rng.fork()));
    match side.plan.ending {
        Ending::Closes(end) if end == side.shared().end => {
            tokio::time::sleep(Duration::from_millis(side.plan.millis)).await;
            side.count(Count::Aborts, 2);
            sending.abort();
            receiving.abort();
        }
        _ => {
            drop(side);
            let _ = receiving.await;
            let _ = sending.await;
        }
    }
}

/// A call that waits, and after how many polls it is dropped.
pub struct Call<T> {
    pub future: Pin<Box<dyn Future<Output = T> + Send>>,
    pub left: Option<u8>,
}

impl<T> Call<T> {
    /// The first poll. A task without budget would not reach the socket: it yields before.
    pub async fn first_poll(
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Pin<Box<dyn Future<Output = T> + Send>>> {
        while !has_budget_remaining() {
            tokio::task::yield_now().await;
        }
        let mut future: Pin<Box<dyn Future<Output = T> + Send>> = Box::pin(future);
        match std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
            Poll::Ready(output) => Ok(output),
            Poll::Pending => Err(future),
        }
    }

    /// Poll; `None` says that the call is to be dropped now.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Option<Poll<T>> {
        let polled = self.future.as_mut().poll(cx);
        match &mut self.left {
            Some(0) if polled.is_pending() => return None,
            Some(left) => *left = left.saturating_sub(1),
            None => {}
        }
        Some(polled)
    }
}

/// The files of a message, to be sent by number.
pub fn borrowed(files: &Files, first: u32, count: usize) -> Vec<BorrowedFd<'_>> {
    (0..count as u32).map(|at| files.get(first.wrapping_add(at)).as_fd()).collect()
}
