//! G2, G3 and G8 through the calls of examples/calls: requests and answers over one socket.

#[path = "../../examples/calls/calls.rs"]
mod layer;

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::{join_all, pending};
use serde::{Deserialize, Deserializer};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_seqpacket::UnixSeqpacket;
use tokio_seqpacket::codec::Passed;
use tokio_test::task;

use self::layer::{Client, Limits, serve};
use crate::harness::descriptors::traced;
use crate::harness::messages::fill;
use crate::harness::waiting::{arm, arm_all, breathe, soon, until_in_runtime};
use crate::harness::{Cell, Test};

pub fn tests() -> Vec<Test> {
    tasks![
        answers_come_in_any_order,
        each_side_limits_the_calls_in_flight,
        a_call_ends_at_its_deadline_and_the_connection_goes_on,
        a_late_answer_to_a_dropped_call_is_discarded,
        a_call_dropped_while_it_is_sent_disturbs_no_other,
        a_question_that_exceeds_a_limit_ends_its_call_alone,
        all_calls_end_with_the_connection,
        a_call_behind_the_end_of_the_connection_ends_with_it,
        a_panic_while_an_answer_is_decoded_ends_all_calls,
        a_peer_that_leaves_without_its_answers_is_no_failure,
        a_call_may_have_no_deadline,
        an_answer_that_does_not_decode_ends_all_calls,
        a_peer_that_does_not_read_its_answers_is_cut_off,
        answers_still_come_after_the_last_request,
    ]
}

const SHORT: Duration = Duration::from_millis(30);

fn start<Q, A, W>(
    socket: UnixSeqpacket,
    limits: Limits,
    answer: impl Fn(Q) -> W + Send + Sync + 'static,
) -> JoinHandle<io::Result<()>>
where
    Q: serde::de::DeserializeOwned + Send + 'static,
    A: serde::Serialize + Send + 'static,
    W: Future<Output = A> + Send + 'static,
{
    tokio::spawn(async move { serve(socket, limits, answer).await })
}

type Answering = Pin<Box<dyn Future<Output = usize> + Send>>;

/// Answers a number when its gate has a permit.
fn gate() -> (Arc<[Semaphore]>, impl Fn(usize) -> Answering) {
    let gates: Arc<[Semaphore]> = (0..8).map(|_| Semaphore::new(0)).collect();
    let behind = gates.clone();
    let answer = move |number: usize| -> Answering {
        let gates = behind.clone();
        Box::pin(async move {
            gates[number].acquire().await.expect("open").forget();
            number
        })
    };
    (gates, answer)
}

async fn answers_come_in_any_order(cell: Cell) {
    let (client, server) = cell.pair();
    let (gates, answer) = gate();
    start(server, Limits::default(), answer);
    let client = Client::<usize, usize>::new(client, Limits::default()).unwrap();
    let mut calls: Vec<_> = (0..4).map(|number| Some(task::spawn(client.call(number)))).collect();
    for call in calls.iter_mut().flatten() {
        arm(call).await;
    }
    for number in [2, 0, 3, 1] {
        gates[number].add_permits(1);
        let answered = calls[number].take().expect("answered once");
        assert_eq!(soon(answered).await.unwrap(), number);
        assert!(calls.iter().flatten().all(|call| !call.is_woken()));
    }
}

async fn each_side_limits_the_calls_in_flight(cell: Cell) {
    for (of_client, of_server) in [(2, 10), (10, 2)] {
        let (client, server) = cell.pair();
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let gate = Arc::new(Semaphore::new(0));
        let answer = {
            let (running, most, gate) = (running.clone(), most.clone(), gate.clone());
            move |()| {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let (running, gate) = (running.clone(), gate.clone());
                async move {
                    gate.acquire().await.expect("open").forget();
                    running.fetch_sub(1, Ordering::SeqCst);
                }
            }
        };
        let limits = |in_flight| Limits { in_flight, ..Limits::default() };
        start(server, limits(of_server), answer);
        let client = Client::<(), ()>::new(client, limits(of_client)).unwrap();
        let calls = join_all((0..6).map(|_| client.call(())));
        let releasing = async {
            let is_full = || running.load(Ordering::SeqCst) == 2;
            until_in_runtime("two calls are in flight", is_full).await;
            breathe().await;
            gate.add_permits(6);
        };
        let (answers, ()) = soon(async { tokio::join!(calls, releasing) }).await;
        answers.into_iter().for_each(|answer| answer.unwrap());
        assert_eq!(most.load(Ordering::SeqCst), 2);
    }
}

async fn a_call_ends_at_its_deadline_and_the_connection_goes_on(cell: Cell) {
    let (client, server) = cell.pair();
    // Dropped with the work for the call.
    let (trace, fd) = traced();
    let held = Mutex::new(Some(fd));
    start(server, Limits::default(), move |waits: bool| {
        let held = held.lock().unwrap().take();
        async move {
            let _held = held;
            if waits { pending().await } else { 7 }
        }
    });
    let limits = Limits { deadline: SHORT, ..Limits::default() };
    let client = Client::<bool, i32>::new(client, limits).unwrap();
    assert_eq!(soon(client.call(true)).await.unwrap_err().kind(), ErrorKind::TimedOut);
    trace.closed().await;
    assert_eq!(soon(client.call(false)).await.unwrap(), 7);
}

async fn a_late_answer_to_a_dropped_call_is_discarded(cell: Cell) {
    let (client, server) = cell.pair();
    let (gates, answer) = gate();
    let (trace, fd) = traced();
    let held = Arc::new(Mutex::new(Some(fd)));
    start(server, Limits::default(), {
        let held = held.clone();
        move |number: usize| {
            let (answered, fd) = (answer(number), held.lock().unwrap().take());
            async move { (answered.await, fd.map(Passed)) }
        }
    });
    type Answer = (usize, Option<Passed<OwnedFd>>);
    let client = Client::<usize, Answer>::new(client, Limits::default()).unwrap();
    let mut dropped = task::spawn(client.call(0));
    arm(&mut dropped).await;
    until_in_runtime("the call has arrived", || held.lock().unwrap().is_none()).await;
    drop(dropped);
    assert!(trace.is_open());
    gates[0].add_permits(1);
    trace.closed().await;
    gates[1].add_permits(1);
    let (number, fd) = soon(client.call(1)).await.unwrap();
    assert_eq!((number, fd.is_none()), (1, true));
}

async fn a_call_dropped_while_it_is_sent_disturbs_no_other(cell: Cell) {
    let (socket, peer) = cell.half();
    fill(&socket);
    let client = Client::<u8, ()>::new(socket, Limits::default()).unwrap();
    for number in 0..3 {
        let mut call = task::spawn(client.call(number));
        arm(&mut call).await;
        drop(call);
    }
    peer.drain();
    let mut call = task::spawn(client.call(9));
    arm(&mut call).await;
    let bodies: Vec<_> = peer.arrived().iter().map(|call| *call.last().unwrap()).collect();
    // The sink held the first one. The others were dropped before it took them.
    assert_eq!(bodies, [0, 9]);
}

async fn a_question_that_exceeds_a_limit_ends_its_call_alone(cell: Cell) {
    let (client, server) = cell.pair();
    start(server, Limits::default(), async |question: Vec<u8>| question.len());
    let client = Client::<Vec<u8>, usize>::new(client, Limits::default()).unwrap();
    let error = soon(client.call(vec![7; 70_000])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(soon(client.call(vec![7; 60_000])).await.unwrap(), 60_000);
}

async fn all_calls_end_with_the_connection(cell: Cell) {
    let (client, peer) = cell.half();
    let client = Client::<u8, u8>::new(client, Limits::default()).unwrap();
    let mut calls: Vec<_> = (0..3).map(|number| task::spawn(client.call(number))).collect();
    arm_all(&mut calls).await;
    peer.drain();
    drop(peer);
    for call in calls {
        let error = soon(call).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
        assert!(error.to_string().contains("the peer has closed"), "{error}");
    }
    let error = soon(client.call(4)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
}

async fn a_call_behind_the_end_of_the_connection_ends_with_it(cell: Cell) {
    for _ in 0..20 {
        let (client, peer) = cell.half();
        let client = Client::<u8, u8>::new(client, Limits::default()).unwrap();
        // Unread by the peer, so that the connection is reset.
        let mut call = task::spawn(client.call(0));
        arm(&mut call).await;
        drop(peer);
        // Before the client has read the end.
        let error = soon(client.call(1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted, "{error}");
        let error = soon(call).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted, "{error}");
    }
}

#[derive(Debug)]
struct PanicsInDecoding;

impl<'de> Deserialize<'de> for PanicsInDecoding {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        // Without the panic hook.
        std::panic::resume_unwind(Box::new("in decoding"))
    }
}

async fn a_panic_while_an_answer_is_decoded_ends_all_calls(cell: Cell) {
    let (client, peer) = cell.half();
    let client = Client::<u8, PanicsInDecoding>::new(client, Limits::default()).unwrap();
    let mut calls: Vec<_> = (0..2).map(|number| task::spawn(client.call(number))).collect();
    arm_all(&mut calls).await;
    peer.send(&[0, 1, 0]);
    for call in calls {
        assert_eq!(soon(call).await.unwrap_err().kind(), ErrorKind::ConnectionAborted);
    }
    let error = soon(client.call(2)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
}

async fn a_peer_that_leaves_without_its_answers_is_no_failure(cell: Cell) {
    // An answer that cannot be sent, and one that is not read.
    for is_sent in [false, true] {
        let (server, peer) = cell.half();
        let (gates, answer) = gate();
        let serving = start(server, Limits::default(), answer);
        peer.send(&[0, 100, 0]);
        peer.send(&[1, 100, 1]);
        breathe().await;
        if is_sent {
            gates[0].add_permits(1);
            breathe().await;
        }
        drop(peer);
        gates[1].add_permits(1);
        soon(serving).await.unwrap().unwrap();
    }
}

async fn a_call_may_have_no_deadline(cell: Cell) {
    let (client, server) = cell.pair();
    let limits = Limits { deadline: Duration::MAX, patience: Duration::MAX, ..Limits::default() };
    start(server, limits, async |number: u8| number);
    let client = Client::<u8, u8>::new(client, limits).unwrap();
    assert_eq!(soon(client.call(7)).await.unwrap(), 7);
}

async fn an_answer_that_does_not_decode_ends_all_calls(cell: Cell) {
    let (client, peer) = cell.half();
    let client = Client::<u8, String>::new(client, Limits::default()).unwrap();
    let mut call = task::spawn(client.call(1));
    arm(&mut call).await;
    peer.send(b"\0\x01\x02\xff\xff");
    let error = soon(call).await.unwrap_err();
    assert!(error.to_string().contains("utf-8"), "{error}");
    assert_eq!(peer.arrived().len(), 1);
    // The connection is closed, so that the peer notices, too.
    soon(peer.ended()).await;
}

async fn a_peer_that_does_not_read_its_answers_is_cut_off(cell: Cell) {
    let (server, peer) = cell.half();
    let limits = Limits { patience: SHORT, ..Limits::default() };
    let serving = start(server, limits, async |_: u8| vec![7_u8; 60_000]);
    for id in 0..8 {
        // An id, milliseconds, a body.
        peer.send(&[id, 100, 0]);
    }
    let error = soon(serving).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(error.to_string().contains("has not read"), "{error}");
    let answers = std::iter::from_fn(|| peer.try_recv().ok().filter(|answer| !answer.is_empty()));
    assert!(answers.count() < 8);
}

async fn answers_still_come_after_the_last_request(cell: Cell) {
    let (server, peer) = cell.half();
    let (gates, answer) = gate();
    let serving = start(server, Limits::default(), answer);
    peer.send(&[5, 100, 1]);
    rustix::net::shutdown(&peer.fd, rustix::net::Shutdown::Write).unwrap();
    breathe().await;
    gates[1].add_permits(1);
    assert_eq!(soon(peer.next()).await.unwrap(), [5, 1, 1]);
    soon(serving).await.unwrap().unwrap();
}
