//! Requests and answers over a seqpacket socket, to be copied and changed.
//!
//! A module of a program and not of the library: it is short, and most of it is policy. Another service will
//! want other deadlines, other errors, or calls that the server makes.
//!
//! - A call has an id, and answers come in any order.
//! - Both sides limit the calls in flight. The server reads no further request meanwhile.
//! - A call has a deadline. The server ends its work for it then, and the client no longer waits.
//! - A call may be dropped at any point. An answer that comes later is discarded, and its descriptors are closed.
//! - When the connection ends, all calls end with the reason, and later ones at once.
//! - A peer that does not read its answers is cut off.

#![allow(dead_code, reason = "each program uses its own part")]

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex as AsyncMutex, Semaphore, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout};
use tokio_seqpacket::codec::Postcard;
use tokio_seqpacket::{Framed, UnixSeqpacket};

/// What one connection may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most calls without an answer.
    pub in_flight: usize,
    /// The longest message in bytes, in both directions.
    pub max_message: usize,
    /// The most descriptors of a message.
    pub max_fds: usize,
    /// How long a call may take.
    pub deadline: Duration,
    /// How long an answer may wait for a peer that does not read.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            in_flight: 64,
            max_message: 64 << 10,
            max_fds: 4,
            deadline: Duration::from_secs(10),
            patience: Duration::from_secs(5),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Call<T> {
    id: u64,
    /// The time that the caller waits, in milliseconds.
    millis: u64,
    body: T,
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer<T> {
    id: u64,
    /// `None` if the deadline was over first.
    body: Option<T>,
}

type Channel<Out, In> = Framed<Postcard<Out, In>, Arc<UnixSeqpacket>>;

/// Makes calls with questions `Q` and answers `A`.
pub struct Client<Q, A> {
    sink: AsyncMutex<Channel<Call<Q>, ()>>,
    waiting: Arc<Mutex<Waiting<A>>>,
    permits: Semaphore,
    deadline: Duration,
    reading: JoinHandle<()>,
}

struct Waiting<A> {
    next_id: u64,
    calls: HashMap<u64, oneshot::Sender<Option<A>>>,
    /// The reason, once the connection has ended.
    ended: Option<String>,
}

impl<A> Waiting<A> {
    fn check(&self) -> io::Result<()> {
        self.ended.as_ref().map_or(Ok(()), |why| Err(aborted(why)))
    }
}

const CLOSED: &str = "the peer has closed the connection";

fn aborted(why: &str) -> io::Error {
    io::Error::new(ErrorKind::ConnectionAborted, why)
}

/// Returns whether an error of the socket says that the peer has closed. A reset is reported to a send or to a receive,
/// whichever comes first.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

impl<Q: Serialize, A: DeserializeOwned + Send + 'static> Client<Q, A> {
    pub fn new(socket: UnixSeqpacket, limits: Limits) -> io::Result<Self> {
        let socket = Arc::new(socket);
        let sink = Framed::with_max_message(socket.clone(), Postcard::new(), limits.max_message)?;
        let answers = Framed::with_max_message(socket, Postcard::new(), limits.max_message)?;
        let waiting =
            Arc::new(Mutex::new(Waiting { next_id: 0, calls: HashMap::new(), ended: None }));
        Ok(Self {
            sink: AsyncMutex::new(sink.max_fds(limits.max_fds)),
            permits: Semaphore::new(limits.in_flight),
            deadline: limits.deadline,
            reading: tokio::spawn(read_answers(answers.max_fds(limits.max_fds), waiting.clone())),
            waiting,
        })
    }

    /// Makes a call and returns its answer.
    ///
    /// # Errors
    /// `TimedOut` at the deadline, `ConnectionAborted` with the reason if the connection has ended. `InvalidInput` for a
    /// question that exceeds a limit: nothing is sent then, and the connection goes on.
    pub async fn call(&self, question: Q) -> io::Result<A> {
        let answer = timeout(self.deadline, self.call_since(Instant::now(), question)).await;
        answer.ok().transpose()?.flatten().ok_or_else(|| {
            io::Error::new(ErrorKind::TimedOut, format!("no answer within {:?}", self.deadline))
        })
    }

    async fn call_since(&self, begin: Instant, body: Q) -> io::Result<Option<A>> {
        let _permit = self.permits.acquire().await.expect("never closed");
        let (registered, answer) = self.register()?;
        let mut sink = self.sink.lock().await;
        let left = self.deadline.saturating_sub(begin.elapsed());
        let millis = left.as_millis().try_into().unwrap_or(u64::MAX);
        let sent = sink.send(Call { id: registered.id, millis, body }).await;
        drop(sink);
        if let Err(error) = sent {
            // A connection that has ended is the reason, and not what a send returns for it.
            self.waiting.lock().unwrap().check()?;
            return Err(if is_gone(&error) { aborted(CLOSED) } else { error });
        }
        match answer.await {
            Ok(answer) => Ok(answer),
            Err(_) => self.waiting.lock().unwrap().check().map(|()| None),
        }
    }

    fn register(&self) -> io::Result<(Registered<'_, A>, oneshot::Receiver<Option<A>>)> {
        let (sender, answer) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap();
        waiting.check()?;
        let id = waiting.next_id;
        waiting.next_id += 1;
        waiting.calls.insert(id, sender);
        Ok((Registered { id, waiting: &self.waiting }, answer))
    }
}

impl<Q, A> Drop for Client<Q, A> {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

/// A call that waits for its answer, until it is dropped.
struct Registered<'a, A> {
    id: u64,
    waiting: &'a Mutex<Waiting<A>>,
}

impl<A> Drop for Registered<'_, A> {
    fn drop(&mut self) {
        let call = self.waiting.lock().unwrap().calls.remove(&self.id);
        drop(call);
    }
}

async fn read_answers<A: DeserializeOwned>(
    answers: Channel<(), Answer<A>>,
    waiting: Arc<Mutex<Waiting<A>>>,
) {
    // Also if decoding panics.
    let why = "the task that reads answers has ended".to_owned();
    let mut ending = Ending { answers, waiting, why };
    ending.why = loop {
        match ending.answers.next().await {
            Some(Ok(Answer { id, body })) => {
                let call = ending.waiting.lock().unwrap().calls.remove(&id);
                // Without a call that waits, the answer is dropped here.
                if let Some(call) = call {
                    let _ = call.send(body);
                }
            }
            Some(Err(error)) => break error.to_string(),
            None => break CLOSED.to_owned(),
        }
    };
}

/// Ends all calls when it is dropped.
struct Ending<A> {
    answers: Channel<(), Answer<A>>,
    waiting: Arc<Mutex<Waiting<A>>>,
    why: String,
}

impl<A> Drop for Ending<A> {
    fn drop(&mut self) {
        let calls = {
            let mut waiting = self.waiting.lock().unwrap();
            waiting.ended = Some(std::mem::take(&mut self.why));
            std::mem::take(&mut waiting.calls)
        };
        drop(calls);
        let _ = self.answers.get_ref().shutdown(Shutdown::Both);
    }
}

/// Answers the calls of one connection, until the peer closes it. One that only shuts down writing still gets its answers.
/// With one that has gone, the work for its calls ends.
///
/// # Errors
/// `TimedOut` for a peer that does not read its answers, and what [`Framed`] returns for a request or an answer that exceeds
/// a limit. The connection is closed then, and the work for its calls ends.
pub async fn serve<Q, A, W>(
    socket: UnixSeqpacket,
    limits: Limits,
    answer: impl Fn(Q) -> W,
) -> io::Result<()>
where
    Q: DeserializeOwned,
    A: Serialize + Send + 'static,
    W: Future<Output = A> + Send + 'static,
{
    let codec = Postcard::<Answer<A>, Call<Q>>::new();
    let mut frames = Framed::with_max_message(socket, codec, limits.max_message)?;
    frames = frames.max_fds(limits.max_fds);
    let mut working = JoinSet::new();
    let mut has_ended = false;
    let served: io::Result<()> = async {
        loop {
            tokio::select! {
                call = frames.next(), if !has_ended && working.len() < limits.in_flight => {
                    let Some(Call { id, millis, body }) = call.transpose()? else {
                        has_ended = true;
                        continue;
                    };
                    let time = limits.deadline.min(Duration::from_millis(millis));
                    let work = timeout(time, answer(body));
                    working.spawn(async move { Answer { id, body: work.await.ok() } });
                }
                Some(answer) = working.join_next() => {
                    let sent = timeout(limits.patience, frames.send(answer?)).await;
                    sent.map_err(|_| {
                        let text = format!("the peer has not read an answer for {:?}", limits.patience);
                        io::Error::new(ErrorKind::TimedOut, text)
                    })??;
                }
                else => return Ok(()),
            }
        }
    }
    .await;
    match served {
        // It wants no answer.
        Err(error) if is_gone(&error) => Ok(()),
        served => served,
    }
}
